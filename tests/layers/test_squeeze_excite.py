"""SqueezeExcite equals the paper's equations, starts, saves, trains and refuses as documented."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from se_keras import SqueezeExcite
from se_keras.layers import ChannelShuffle, ImagePreprocessing
from se_keras.layers.data_formats import data_format_or_default
from se_keras.layers.squeeze_excite import GATES, SQUEEZES

SHAPES = {3: (2, 7, 12), 4: (2, 5, 7, 12), 5: (2, 3, 5, 4, 12)}
NUMPY_GATES = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}


def reference(x, w1, b1, w2, b2, squeeze, gate):
    """Equations 2 to 4 of the paper in float64; channels last."""
    axes = tuple(range(1, x.ndim - 1))
    mean, largest = x.mean(axis=axes), x.max(axis=axes)
    z = {"avg": mean, "max": largest, "avgmax": (mean + largest) / 2}[squeeze]
    s = NUMPY_GATES[gate](np.maximum(z @ w1 + b1, 0) @ w2 + b2)
    return x * s.reshape(len(x), *(1,) * len(axes), -1)


def with_random_weights(layer, shape, rng):
    layer.build(shape)
    layer.set_weights([0.5 * rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("squeeze", SQUEEZES)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_output_equals_numpy_reference(rank, squeeze, gate, use_bias, data_format, rng):
    x = rng.normal(size=SHAPES[rank])
    inputs = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
    layer = SqueezeExcite(4, squeeze=squeeze, gate_activation=gate, use_bias=use_bias, data_format=data_format)
    with_random_weights(layer, inputs.shape, rng)
    weights = [np.asarray(weight, "float64") for weight in layer.get_weights()]
    w1, b1, w2, b2 = weights if use_bias else (weights[0], 0, weights[1], 0)

    outputs = ops.convert_to_numpy(layer(inputs.astype("float32")))

    outputs = outputs if data_format == "channels_last" else np.moveaxis(outputs, 1, -1)
    expected = reference(x.astype("float32").astype("float64"), w1, b1, w2, b2, squeeze, gate)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)


def test_gates_have_one_number_a_channel_and_scale_the_input(rng):
    x = rng.normal(size=(2, 5, 7, 12)).astype("float32")
    layer = with_random_weights(SqueezeExcite(4), x.shape, rng)
    gates = ops.convert_to_numpy(layer.gates(x))
    assert gates.shape == (2, 1, 1, 12)
    assert gates.min() > 0
    assert gates.max() < 1
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), x * gates)
    first = SqueezeExcite(4, data_format="channels_first")
    assert first.gates(np.ones((2, 12, 5, 7), "float32")).shape == (2, 12, 1, 1)


def test_gates_build_the_layer_when_nothing_did_before():
    layer = SqueezeExcite(4)
    assert layer.gates(np.ones((1, 3, 12), "float32")).shape == (1, 1, 12)
    assert [tuple(weight.shape) for weight in layer.weights] == [(12, 3), (3,), (3, 12), (12,)]


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_identity_start_returns_exactly_the_input(gate, use_bias, rng):
    x = (100 * rng.normal(size=(2, 5, 7, 12))).astype("float32")
    layer = SqueezeExcite(4, gate_init="identity", gate_activation=gate, use_bias=use_bias, bias_initializer="ones")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), x)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_identity_start_is_exact_in_half_precision(policy, rng):
    x = ops.cast(rng.normal(size=(2, 5, 7, 12)), policy.removeprefix("mixed_"))
    outputs = SqueezeExcite(4, gate_init="identity", dtype=policy)(x)
    np.testing.assert_array_equal(ops.convert_to_numpy(ops.cast(outputs, "float32")), ops.cast(x, "float32"))


def test_identity_start_trains_away_from_the_identity(rng):
    layer = SqueezeExcite(4, gate_init="identity")
    model = keras.Sequential([keras.Input((4, 4, 12)), layer])
    model.compile("sgd", "mse", jit_compile=False)
    x = rng.normal(size=(8, 4, 4, 12)).astype("float32")
    model.fit(x, 2 * x, epochs=2, verbose=0)
    assert np.abs(layer.get_weights()[2]).max() > 0


@pytest.mark.parametrize("gate", ["tanh", "relu"])
def test_identity_start_is_refused_where_the_gate_is_zero_at_zero(gate):
    message = rf"a gate activation with gate\(0\) != 0.*{gate}.*returns 0\. Use .*'sigmoid' or 'hard_sigmoid'"
    with pytest.raises(ValueError, match=message):
        SqueezeExcite(gate_init="identity", gate_activation=gate)


def test_squeeze_channels_replaces_reduction():
    layer = SqueezeExcite(16, squeeze_channels=5)
    layer.build((None, 4, 4, 8))  # 8 < 16: reduction is not looked at
    assert tuple(layer.reduce_kernel.shape) == (8, 5)


def test_width_is_rounded_down():
    layer = SqueezeExcite(16)
    layer.build((None, 4, 4, 216))
    assert tuple(layer.reduce_kernel.shape) == (216, 13)


@pytest.mark.parametrize(("policy", "tolerance"), [("mixed_float16", 2**-12), ("mixed_bfloat16", 2**-9)])
@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_half_precision_squeezes_in_float32(policy, tolerance, squeeze, rng):
    # 112 * 112 * 1000 is far beyond float16, and the mean of that many numbers is lost in bfloat16.
    x = (1000 + rng.normal(size=(1, 112, 112, 16))).astype("float32")
    exact = SqueezeExcite(4, squeeze=squeeze)
    exact.build(x.shape)
    exact.set_weights([rng.normal(size=w.shape) / (1000 if w.ndim == 2 else 1) for w in exact.weights])
    half = SqueezeExcite(4, squeeze=squeeze, dtype=policy)
    half.build(x.shape)
    half.set_weights(exact.get_weights())

    gates = half.gates(x)

    assert keras.backend.standardize_dtype(gates.dtype) == policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(half(x).dtype) == policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(half.weights[0].dtype) == "float32"
    rounded = ops.cast(ops.cast(x, gates.dtype), "float32")  # what the half-precision layer is given
    expected = ops.convert_to_numpy(exact.gates(rounded))
    # One rounding of a gate below 1 to the compute dtype, and nothing else but float32's own.
    found = ops.convert_to_numpy(ops.cast(gates, "float32"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance + 1e-6)
    assert np.isfinite(ops.convert_to_numpy(ops.cast(half(x), "float32"))).all()


def test_float64_is_computed_in_float64(rng):
    x = rng.normal(size=(2, 5, 12))
    layer = with_random_weights(SqueezeExcite(4, dtype="float64"), x.shape, rng)
    outputs = ops.convert_to_numpy(layer(x))
    expected = reference(x, *layer.get_weights(), "avg", "sigmoid")
    np.testing.assert_allclose(outputs, expected, rtol=1e-13)


EVERY_ARGUMENT = {
    "reduction": 3,
    "squeeze_channels": 5,
    "squeeze": "avgmax",
    "activation": "gelu",
    "gate_activation": "hard_sigmoid",
    "gate_init": "identity",
    "use_bias": False,
    "data_format": "channels_first",
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "ones",
    "kernel_regularizer": keras.regularizers.L2(0.25),
}


def test_config_round_trip_keeps_every_argument():
    arguments = set(inspect.signature(SqueezeExcite).parameters) - {"kwargs"}
    assert arguments == set(EVERY_ARGUMENT), "a new argument must be added to this test"
    layer = SqueezeExcite(**EVERY_ARGUMENT, name="gate")
    config = layer.get_config()
    copy = SqueezeExcite.from_config(config)
    default = SqueezeExcite(name="gate").get_config()
    assert copy.get_config() == config
    for argument in arguments:
        assert config[argument] != default[argument], argument


@pytest.mark.parametrize("gate_init", ["default", "identity"])
def test_saved_model_computes_the_same(gate_init, tmp_path, rng):
    inputs = keras.Input((None, None, 12))
    options = {"squeeze": "avgmax", "gate_activation": "hard_sigmoid", "squeeze_channels": 5}
    model = keras.Model(inputs, SqueezeExcite(gate_init=gate_init, **options)(inputs))
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(2, 5, 7, 12)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(model(x)))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


def test_weights_are_regularized():
    layer = SqueezeExcite(4, kernel_regularizer=keras.regularizers.L2(0.5))
    layer.build((None, 4, 4, 12))
    layer.set_weights([np.ones(weight.shape) for weight in layer.weights])
    np.testing.assert_allclose(sum(map(float, layer.losses)), 0.5 * 2 * 12 * 3)  # both kernels, no bias


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.se = SqueezeExcite(4)

    def call(self, inputs):
        return self.se(inputs)


def _functional():
    inputs = keras.Input((None, None, 12))
    return keras.Model(inputs, SqueezeExcite(4)(inputs))


MODELS = {
    "sequential": lambda: keras.Sequential([SqueezeExcite(4)]),
    "functional": _functional,
    "subclassed": Subclassed,
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("jit_compile", [True, False])
def test_one_step_of_fit_changes_every_weight(kind, jit_compile, rng):
    model = MODELS[kind]()
    x = rng.normal(size=(8, 4, 5, 12)).astype("float32")
    model(x)
    before = [np.array(weight) for weight in model.get_weights()]
    model.compile("adam", "mse", jit_compile=jit_compile)
    model.fit(x, 0.1 * x, batch_size=8, verbose=0)
    assert len(before) == 4
    for old, weight in zip(before, model.weights, strict=True):
        assert not np.array_equal(old, ops.convert_to_numpy(weight)), weight.path


@pytest.mark.parametrize("shape", [(None, 12), (None, None, 12), (None, None, None, 12)])
def test_symbolic_output_shape_is_the_input_shape(shape):
    inputs = keras.Input(shape)
    assert SqueezeExcite(4)(inputs).shape == (None, *shape)
    assert SqueezeExcite(4).compute_output_shape((None, *shape)) == (None, *shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction": 0}, r"`reduction` must be an integer of at least 1; received reduction=0"),
        ({"reduction": -4}, r"`reduction` must be an integer of at least 1; received reduction=-4"),
        ({"reduction": 4.0}, r"`reduction` must be an integer of at least 1; received reduction=4\.0"),
        ({"reduction": True}, r"`reduction` must be an integer of at least 1; received reduction=True"),
        ({"reduction": "4"}, r"`reduction` must be an integer of at least 1; received reduction='4'"),
        ({"squeeze_channels": 0}, r"`squeeze_channels` must be an integer of at least 1; received squeeze_channels=0"),
        ({"squeeze_channels": True}, r"`squeeze_channels` must be an integer of at least 1; received .*=True"),
        ({"squeeze_channels": 2.5}, r"`squeeze_channels` must be an integer of at least 1; received .*=2\.5"),
        ({"squeeze": "mean"}, r"Unknown squeeze 'mean'.*Options: 'avg', 'max', 'avgmax'\."),
        ({"squeeze": "avgmx"}, r"Unknown squeeze 'avgmx'\. Did you mean 'avgmax'.*\? Options:"),
        (
            {"gate_activation": "sigmod"},
            r"Unknown gate_activation 'sigmod'\. Did you mean 'sigmoid'.*\? Options: .*'tanh'",
        ),
        ({"gate_init": "zero"}, r"Unknown gate_init 'zero'.*Options: 'default', 'identity'\."),
        ({"data_format": "NCHW"}, r"Unknown data_format 'NCHW'.*Options: 'channels_last', 'channels_first'\."),
    ],
)
def test_bad_argument_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SqueezeExcite(**arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, 12), r"rank 3 \(sequences\), 4 \(images\), or 5 \(volumes\); 'gate' received shape \(None, 12\)"),
        ((None, 2, 2, 2, 2, 12), r"rank 3 .* 'gate' received shape \(None, 2, 2, 2, 2, 12\)"),
        ((None, 4, 4, None), r"number of channels; 'gate' received shape .*'channels_last'\. Fix the channel axis"),
        ((None, 4, 4, 8), r"must not exceed .*'gate' received reduction=9 for 8 channels\. Lower `reduction`, or set"),
    ],
)
def test_bad_input_shape_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        SqueezeExcite(9, name="gate").build(shape)


def test_input_of_rank_2_is_refused_when_called():
    with pytest.raises(ValueError, match=r"rank 3 \(sequences\), 4 \(images\), or 5 \(volumes\)"):
        SqueezeExcite(4)(np.ones((2, 12), "float32"))


def test_gates_of_a_symbolic_tensor_are_refused():
    with pytest.raises(ValueError, match="takes values, not a symbolic Keras tensor"):
        SqueezeExcite(4).gates(keras.Input((8, 8, 16)))


# Masks.

MASKED = {  # from the shape of a map to that of its mask
    "series": ((2, 5, 4), (2, 5)),
    "frames": ((2, 5, 3, 2, 4), (2, 5)),
    "positions": ((2, 5, 3, 4), (2, 5, 3)),
    "whole rows": ((2, 5, 4), (2,)),
}


@pytest.mark.parametrize("squeeze", ["avg", "max", "avgmax"])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kind", MASKED)
def test_masked_positions_are_not_squeezed(kind, layout, squeeze, rng):
    shape, mask_shape = MASKED[kind]
    x, mask = rng.normal(size=shape).astype("float32"), rng.uniform(size=mask_shape) > 0.4
    mask[1] = True
    counted = np.broadcast_to(mask.reshape(*mask_shape, *(1,) * (len(shape) - len(mask_shape))), shape)
    x[~counted] = 1e9  # what a padding holds must not matter
    rows = zip(x, counted, strict=True)
    parts = [row[kept].reshape(-1, 4) if kept.any() else np.zeros((1, 4)) for row, kept in rows]
    squeezed = np.stack(
        [{"avg": p.mean(0), "max": p.max(0), "avgmax": (p.mean(0) + p.max(0)) / 2}[squeeze] for p in parts]
    )
    layer = SqueezeExcite(2, squeeze=squeeze, data_format=layout)
    layer.build(
        (2, *(None,) * (len(shape) - 2), 4) if layout == "channels_last" else (2, 4, *(None,) * (len(shape) - 2))
    )
    reference = SqueezeExcite(2, data_format="channels_last")
    reference.build((2, 1, 4))
    reference.set_weights(layer.get_weights())
    expected = ops.convert_to_numpy(reference.gates(squeezed[:, None].astype("float32"))).reshape(2, 4)
    given = x if layout == "channels_last" else np.moveaxis(x, -1, 1)
    gates = ops.convert_to_numpy(layer.gates(given, mask)).reshape(2, 4)
    np.testing.assert_allclose(gates, expected, rtol=1e-5)


@pytest.mark.parametrize("squeeze", ["avg", "max", "avgmax"])
def test_padding_changes_no_answer_and_the_mask_is_handed_on(squeeze, rng):
    inputs = keras.Input((None, 4))
    x = keras.layers.Masking()(inputs)
    x = SqueezeExcite(2, squeeze=squeeze)(keras.layers.Dense(6)(x))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))
    series = rng.normal(size=(3, 7, 4)).astype("float32")
    padded = np.concatenate([series, np.zeros((3, 15, 4), "float32")], axis=1)
    np.testing.assert_allclose(model(padded), model(series), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_rows_without_any_step_give_finite_gates_and_gradients(policy, rng):
    layer = SqueezeExcite(2, squeeze="avgmax", dtype=policy)
    x = rng.normal(size=(2, 5, 4)).astype("float32")
    mask = np.array([[False] * 5, [True] * 5])
    assert np.isfinite(ops.convert_to_numpy(layer.gates(x, mask)).astype("float32")).all()
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.Masking(), layer, keras.layers.LSTM(2)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(x * mask[..., None], np.zeros((2, 2)), verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "tanh", "relu"])
def test_a_gate_given_as_an_operation_is_the_one_that_is_loaded(gate):
    """Surgery knows the range of a gate by its function."""
    assert SqueezeExcite(gate_activation=getattr(ops, gate)).gate_activation is keras.activations.get(gate)


@pytest.mark.parametrize("seed", [None, 3, keras.random.SeedGenerator(1)], ids=["none", "number", "generator"])
def test_both_kernels_begin_with_numbers_of_their_own(seed):
    layer = SqueezeExcite(1, kernel_initializer=keras.initializers.HeNormal(seed))
    layer.build((None, 4, 4, 64))
    kernels = [keras.ops.convert_to_numpy(kernel).ravel() for kernel in (layer.reduce_kernel, layer.expand_kernel)]
    assert abs(np.corrcoef(*kernels)[0, 1]) < 0.1


def test_a_seed_gives_the_same_block_again():
    def kernel():
        layer = SqueezeExcite(4, kernel_initializer=keras.initializers.HeNormal(3))
        layer.build((None, 4, 4, 64))
        return keras.ops.convert_to_numpy(layer.expand_kernel)

    np.testing.assert_array_equal(kernel(), kernel())


@pytest.mark.parametrize(
    "make",
    [
        lambda data_format: SqueezeExcite(4, data_format=data_format),
        lambda data_format: ChannelShuffle(2, data_format=data_format),
        lambda data_format: ImagePreprocessing(mean=(0.5,), std=(0.5,), data_format=data_format),
    ],
)
def test_an_unknown_data_format_is_refused(make):
    assert data_format_or_default(None) == keras.config.image_data_format()
    with pytest.raises(ValueError, match="Unknown data_format 'channels_middle'"):
        make("channels_middle")
