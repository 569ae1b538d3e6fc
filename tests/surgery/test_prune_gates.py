"""`prune_gates` folds gates that do not vary into what stands before them, exactly, and reports what that gives."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest
from cases import ALL
from keras import layers, ops
from rewriting import deployment, randomized, relative_difference

import se_keras
from se_keras import SEConfig, SqueezeExcite
from se_keras.surgery import GateChange, PruningReport, prune_gates, pruning_curve


def made_constant(model: keras.Model, prefix: str = "") -> keras.Model:
    """Gives blocks gates that differ from channel to channel, but not from image to image."""
    rng = np.random.default_rng(3)
    for layer in model._flatten_layers():
        if isinstance(layer, SqueezeExcite) and layer.name.startswith(prefix):
            layer.expand_kernel.assign(np.zeros(layer.expand_kernel.shape))
            layer.expand_bias.assign(rng.normal(0, 2, layer.expand_bias.shape))
    return model


def photos(count: int = 3, size: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (count, size, size, 3)).astype("float32")


def pruned(model, data=None, bound=0.0, *, labels=None, blocks=None) -> tuple[keras.Model, PruningReport]:
    data = photos() if data is None else data
    (report,) = pruning_curve(model, data, bounds=[bound], labels=labels, blocks=blocks, timed_calls=0, verbose=0)
    return prune_gates(model, data, bound=bound, blocks=blocks, verbose=0), report


def actions(report: PruningReport) -> dict[str, str]:
    return {change.block: change.action for change in report.changes}


def residual(x, filters, name):
    """A basic block as those of SE-ResNet."""
    branch = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    branch = layers.ReLU()(layers.BatchNormalization(name=f"{name}_bn1")(branch))
    branch = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv2")(branch)
    branch = SqueezeExcite(2, name=f"{name}_se")(layers.BatchNormalization(name=f"{name}_bn2")(branch))
    return layers.ReLU()(layers.Add()([x, branch]))


@pytest.fixture
def resnet():
    """Three residual blocks, of which the first two have constant gates."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="stem")(inputs)
    for name in ("stage2_block1", "stage2_block2", "stage3_block1"):
        x = residual(x, 8, name)
    outputs = layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x))
    return made_constant(randomized(keras.Model(inputs, outputs, name="small_resnet")), "stage2")


def test_constant_blocks_go_and_the_answers_stay(resnet):
    before = [value.copy() for value in resnet.get_weights()]
    small, report = pruned(resnet)
    assert relative_difference(resnet, small) < 1e-5
    assert report.pruned == ("stage2_block1_se", "stage2_block2_se")
    details = [(change.action, change.detail) for change in report.changes]
    assert details[:2] == [("folded", "stage2_block1_bn2"), ("folded", "stage2_block2_bn2")]
    assert details[2] == ("kept", "it deviates by more than 0")
    gone = [resnet.get_layer(name) for name in report.pruned]
    assert report.parameters == (resnet.count_params(), small.count_params())
    assert resnet.count_params() - small.count_params() == sum(layer.count_params() for layer in gone)
    assert [layer.name for layer in small.layers if isinstance(layer, SqueezeExcite)] == ["stage3_block1_se"]
    assert small.name == resnet.name
    for value, old in zip(resnet.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_bound_of_zero_leaves_gates_that_vary(resnet):
    block = resnet.get_layer("stage2_block1_se")
    block.expand_kernel.assign(np.full(block.expand_kernel.shape, 1e-3))
    small, report = pruned(resnet)
    assert actions(report)["stage2_block1_se"] == "kept"
    assert relative_difference(resnet, small) < 1e-5


@pytest.mark.slow
def test_result_can_be_trained_saved_and_deployed(resnet, tmp_path):
    small, _ = pruned(resnet)
    small.save(tmp_path / "small.keras")
    assert relative_difference(keras.saving.load_model(tmp_path / "small.keras"), small) < 1e-6
    deployed, changes = deployment(small)
    assert relative_difference(deployed, resnet) < 1e-4
    assert {change.action for change in changes if "bn" in change.layer} == {"folded"}
    small.compile("sgd", "mse")
    small.fit(photos(), np.zeros((3, 4)), verbose=0)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("se_resnet20", {}, {"folded"}),
        pytest.param("se_resnet20", {"se": SEConfig(position="pre")}, {"scaled"}, marks=pytest.mark.slow),
        pytest.param("se_resnet20", {"se": SEConfig(position="post")}, {"scaled"}, marks=pytest.mark.slow),
        # Where the shortcut has a projection, it takes the gate.
        pytest.param(
            "se_resnet20", {"se": SEConfig(position="identity")}, {"folded", "scaled"}, marks=pytest.mark.slow
        ),
        pytest.param("se_resnet50", {"se": SEConfig(position="conv3x3")}, {"folded"}, marks=pytest.mark.slow),
        *([pytest.param("se_bn_inception", {}, {"folded", "scaled"}, marks=pytest.mark.slow)] if ALL else []),
        pytest.param("se_mobilenet", {}, {"scaled"}, marks=pytest.mark.slow),
    ],
)
def test_networks(name, options, expected):
    size = 64 if name == "se_bn_inception" else 32
    model = se_keras.create_model(
        name, weights=None, input_shape=(size, size, 3), classifier_activation=None, **options
    )
    made_constant(randomized(model))
    small, report = pruned(model, photos(size=size))
    assert relative_difference(model, small) < 1e-4
    assert len(report.pruned) == len(report.changes) > 8
    assert set(actions(report).values()) == expected
    assert not [layer for layer in small.layers if isinstance(layer, SqueezeExcite)]


def with_block(before, *, gate=None, shape=(8, 8, 3), **options):
    """A model whose SE block stands behind the layers that `before` applies to the input."""
    inputs = keras.Input(shape)
    x = before(inputs)
    model = randomized(keras.Model(inputs, SqueezeExcite(1, name="se", **options)(x)))
    made_constant(model)
    if gate is not None:
        model.get_layer("se").expand_bias.assign(np.full(x.shape[-1], gate))
    return model


def conv(x, **options):
    return layers.Conv2D(4, 3, name="conv", **options)(x)


def norm_without_scale(x):
    return layers.BatchNormalization(scale=False, center=False, name="norm")(conv(x))


def branches(x):
    parts = [layers.Conv2D(n, 1, activation="relu", name=f"conv{n}")(x) for n in (2, 3)]
    pooled = layers.MaxPooling2D(1)(layers.BatchNormalization(name="norm")(x))
    return layers.Concatenate()([*parts, pooled])


@pytest.mark.parametrize(
    ("before", "detail"),
    [
        (conv, "conv"),
        (lambda x: conv(x, use_bias=False), "conv"),
        (lambda x: conv(x, activation="relu"), "conv"),
        (norm_without_scale, "norm"),
        (lambda x: layers.ReLU()(layers.ZeroPadding2D(1)(conv(x))), "conv"),
        (lambda x: layers.LeakyReLU()(layers.Dropout(0.5)(conv(x))), "conv"),
        (lambda x: layers.AveragePooling2D(2, padding="same")(conv(x)), "conv"),
        (lambda x: layers.UpSampling2D(2, interpolation="bicubic")(conv(x)), "conv"),
        (lambda x: layers.PReLU(shared_axes=[1, 2])(layers.DepthwiseConv2D(3, depth_multiplier=2, name="d")(x)), "d"),
        (lambda x: layers.SeparableConv2D(5, 3, name="s")(x), "s"),
        (lambda x: layers.Conv2DTranspose(5, 3, name="t")(x), "t"),
        (lambda x: layers.Dense(5, name="dense")(x), "dense"),
        (branches, "conv2, conv3, norm"),
    ],
)
def test_folding_is_exact(before, detail):
    model = with_block(before)
    small, report = pruned(model, photos())
    assert [(change.action, change.detail) for change in report.changes] == [("folded", detail)]
    assert relative_difference(model, small) < 1e-5
    assert [type(layer) for layer in small.layers] == [type(x) for x in model.layers if type(x) is not SqueezeExcite]


def shared(x):
    layer = layers.Conv2D(3, 1, name="conv")
    return layer(layer(x))


def used_twice(x):
    x = conv(x)
    return layers.Add()([SqueezeExcite(1, name="other")(x), layers.Activation("tanh")(x)])


@pytest.mark.parametrize(
    ("before", "options", "reason"),
    [
        (lambda x: x, {}, "the model's input"),
        (lambda x: conv(x, activation="tanh"), {}, "the activation of 'conv'"),
        (lambda x: layers.Activation("relu6", name="act")(conv(x)), {}, "'act' .Activation. precedes"),
        (lambda x: layers.ReLU(6, name="act")(conv(x)), {}, "'act' .ReLU. precedes"),
        (lambda x: layers.ReLU(name="act")(conv(x)), {"gate_activation": "tanh", "gate": -1.0}, "'act' .ReLU."),
        (shared, {}, "'conv' is shared"),
        (used_twice, {}, ".Add. precedes"),
        (lambda x: layers.BatchNormalization(axis=1, name="norm")(x), {}, "'norm' works along another axis"),
    ],
)
def test_what_cannot_be_folded_becomes_a_multiplication(before, options, reason):
    model = with_block(before, **options)
    small, report = pruned(model, photos())
    change = report.changes[-1]
    assert change.action == "scaled"
    assert re.search(reason, change.detail)
    assert relative_difference(model, small) < 1e-5
    assert type(small.get_layer("se")) is layers.DepthwiseConv2D


def test_negative_gates_go_through_what_is_linear():
    model = with_block(lambda x: layers.BatchNormalization(name="norm")(conv(x)), gate_activation="tanh", gate=-1.0)
    small, report = pruned(model, photos())
    assert actions(report) == {"se": "folded"}
    assert relative_difference(model, small) < 1e-5


def test_gate_of_the_identity_is_one(rng):
    model = with_block(conv, gate_init="identity", gate=0.0)
    small, report = pruned(model, photos())
    assert actions(report) == {"se": "folded"}
    np.testing.assert_array_equal(small.get_layer("conv").kernel, model.get_layer("conv").kernel)


def test_sequences_volumes_and_channels_first():
    model = with_block(lambda x: layers.Conv1D(4, 3)(x), shape=(9, 3))
    assert relative_difference(model, pruned(model, np.ones((2, 9, 3)))[0]) < 1e-5
    model = with_block(lambda x: x, shape=(9, 3))
    small, report = pruned(model, np.ones((2, 9, 3)))
    assert actions(report) == {"se": "scaled"}
    assert relative_difference(model, small) < 1e-6
    model = with_block(lambda x: x, shape=(3, 2, 3, 3))
    small, report = pruned(model, np.ones((2, 3, 2, 3, 3)))
    assert actions(report) == {"se": "scaled"}
    assert relative_difference(model, small) < 1e-6
    model = with_block(lambda x: layers.Conv3D(4, 3)(x), shape=(5, 5, 5, 3))
    assert actions(pruned(model, np.ones((2, 5, 5, 5, 3)))[1]) == {"se": "folded"}

    inputs = keras.Input((3, 6, 6))
    x = layers.Concatenate(axis=1)([layers.BatchNormalization(axis=1, name="a")(inputs), layers.ReLU()(inputs)])
    model = randomized(keras.Model(inputs, SqueezeExcite(1, name="se", data_format="channels_first")(x)))
    small, report = pruned(made_constant(model), np.ones((2, 3, 6, 6)))
    assert actions(report) == {"se": "scaled"}
    if keras.backend.backend() != "tensorflow":  # which has no such convolution on a CPU
        assert relative_difference(model, small) < 1e-5
    x = layers.BatchNormalization(axis=1, name="a")(inputs)
    model = randomized(keras.Model(inputs, SqueezeExcite(1, name="se", data_format="channels_first")(x)))
    small, report = pruned(made_constant(model), np.ones((2, 3, 6, 6)))
    assert actions(report) == {"se": "folded"}
    assert relative_difference(model, small) < 1e-5


def of_layers(x):
    z = layers.Dense(2, activation="relu", name="se_reduce")(layers.GlobalAveragePooling1D(keepdims=True)(x))
    gate = layers.Dense(x.shape[-1], kernel_initializer="zeros", bias_initializer="ones", name="se_expand")(z)
    return layers.Multiply(name="se")([x, gate])


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize("before", [layers.Dense(4), layers.Activation("tanh")], ids=["folded", "scaled"])
@pytest.mark.parametrize("block", [SqueezeExcite(1, name="se"), of_layers], ids=["layer", "layers"])
def test_masks_stay_where_constant_gates_go(block, before):
    tokens = keras.Input((6,))
    x = block(before(layers.Embedding(9, 4, mask_zero=True)(tokens)))
    model = made_constant(keras.Model(tokens, layers.GlobalAveragePooling1D()(x)))
    data = np.array([[3, 4, 5, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    small, report = pruned(model, data)
    action = "folded" if isinstance(before, layers.Dense) else "scaled"
    assert actions(report) == {"se": "kept" if block is of_layers else action}
    np.testing.assert_allclose(model(data), small(data), rtol=1e-5, atol=1e-6)


def test_block_that_is_given_a_mask_stays():
    tokens = keras.Input((6,))
    embedding = layers.Embedding(9, 4)
    x = SqueezeExcite(1, name="se")(embedding(tokens), mask=ops.not_equal(tokens, 0))
    model = made_constant(keras.Model(tokens, layers.GlobalAveragePooling1D()(x)))
    _, report = pruned(model, np.ones((2, 6), "int32"))
    assert "called with a mask" in str(report.changes[0])
    assert actions(report) == {"se": "kept"}


def test_models_within_models_and_shared_blocks():
    inputs = keras.Input((8, 8, 3))
    inner = with_block(lambda x: layers.Conv2D(3, 1, name="conv")(x))
    outer = keras.Model(inputs, inner(layers.BatchNormalization(name="norm")(inputs)))
    small, report = pruned(outer, photos())
    assert actions(report) == {"se": "folded"}
    assert relative_difference(outer, small) < 1e-5
    twice = keras.Model(inputs, inner(inner(inputs)))
    small, report = pruned(twice, photos())
    assert actions(report) == {"se": "scaled", "se:2": "scaled"}
    assert relative_difference(twice, small) < 1e-5


def test_bounds_decide_by_the_greatest_deviation_of_a_block():
    inputs = keras.Input((2, 2, 2))
    model = keras.Model(inputs, SqueezeExcite(1, name="se")(layers.Conv2D(2, 1, name="conv")(inputs)))
    eye = np.eye(2, dtype="float32")
    model.set_weights([eye.reshape(1, 1, 2, 2), np.zeros(2), eye, np.zeros(2), np.diag([1.0, 0.0]), np.zeros(2)])
    images = np.ones((2, 2, 2, 2), "float32") * np.array([0.0, 2.0])[:, None, None, None]
    deviation = (1 / (1 + np.exp(-2)) - 0.5) / 2
    curve = pruning_curve(model, images, bounds=[0.0, 0.99 * deviation, 1.01 * deviation], timed_calls=0)
    assert [report.pruned for report in curve] == [(), (), ("se",)]
    assert curve[0].changes[0].deviation == pytest.approx(deviation, rel=1e-5)
    small = prune_gates(model, images, bound=1.01 * deviation)
    gate = [0.5 + deviation, 0.5]  # the mean over both images
    np.testing.assert_allclose(np.asarray(small.get_layer("conv").kernel)[0, 0], np.diag(gate), rtol=1e-5)


def classifier():
    inputs = keras.Input((1, 1, 2))
    scores = layers.Softmax()(layers.Flatten()(SqueezeExcite(1, name="se")(inputs)))
    model = keras.Model(inputs, scores, name="classifier")
    # The gate of the second channel rises with the first channel: 1/2 or nearly 1.
    model.set_weights([np.eye(2), np.zeros(2), np.array([[0.0, 9.0], [0.0, 0.0]]), np.zeros(2)])
    return model, np.array([[1.0, 0.55], [0.0, 1.0], [1.0, 0.4]], "float32")[:, None, None, :]


def test_report_counts_accuracy_agreement_and_costs():
    model, images = classifier()
    (report,) = pruning_curve(
        model,
        images,
        bounds=[1.0],
        labels=[1, 1, 0],
        count_macs=lambda m: se_keras.model_info(m).total.macs,
        timed_calls=3,
    )
    # The gate of the second channel becomes 5/6, so that the first image has 0.5 against 0.46 instead of 0.55.
    assert report.accuracy == (1.0, pytest.approx(2 / 3))
    assert report.agreement == pytest.approx(2 / 3)
    assert report.parameters == (12, 2)
    assert report.macs == (8, 2)
    assert min(report.seconds) > 0
    assert report.images == 3
    text = str(report)
    for part in ("classifier: 1 of 1 SE blocks", "12 -> 2", "8 -> 2", "ms", "100.00%", "scaled se (deviation 0.2"):
        assert part in text
    assert str(GateChange("a", 0.5, "folded", "b")) == "folded a (deviation 0.5): b"


def test_report_without_labels_or_classes():
    model, images = classifier()
    _, report = pruned(model, images)
    assert (report.accuracy, report.macs, report.seconds, report.agreement) == (None, None, None, 1.0)
    _, report = pruned(with_block(conv), photos(), labels=[0, 1, 0])
    assert (report.accuracy, report.agreement) == (None, None)


@pytest.mark.parametrize(
    ("head", "agreement"),
    [
        (lambda x: x, None),  # features
        (lambda x: layers.Dense(2, activation="tanh")(x), None),
        (lambda x: layers.Dense(2, activation="softmax")(x), 1.0),
        (lambda x: layers.Dense(2)(x), 1.0),  # logits
    ],
)
def test_only_classifiers_agree_on_classes(head, agreement):
    inputs = keras.Input((1, 1, 2))
    model = keras.Model(inputs, head(layers.Flatten()(SqueezeExcite(1, name="se")(inputs))))
    assert pruned(model, photos(2, 1)[..., :2], labels=[0, 1])[1].agreement == agreement


def test_labels_of_a_dataset_are_used():
    model, images = classifier()
    _, report = pruned(model, [(images[:2], [1, 1]), (images[2:], [0])], 0.0)
    assert report.accuracy == (1.0, 1.0)


def test_only_named_blocks_go(resnet):
    small, report = pruned(resnet, bound=math.inf, blocks=["stage3_block1_se", "stage2_block2_se"])
    assert report.pruned == ("stage2_block2_se", "stage3_block1_se")
    assert report.changes[0].detail == "it is not in `blocks`"
    assert [layer.name for layer in small.layers if isinstance(layer, SqueezeExcite)] == ["stage2_block1_se"]
    with pytest.raises(ValueError, match=r"SE block 'stage2_block9_se'\. Did you mean 'stage2_block"):
        pruned(resnet, blocks=["stage2_block9_se"])


def without_blocks():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, conv(inputs), name="plain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bounds": [0.0, -0.1]}, "`bound` must be a standard deviation"),
        ({"bounds": [math.nan]}, "`bound` must be a standard deviation"),
        ({"model": without_blocks}, "the model 'plain' has none"),
        ({"model": lambda: type("Own", (keras.Model,), {})()}, "Only functional models"),
        ({"data": photos(0)}, "at least one image"),
        ({"labels": [0, 1]}, "2 labels for 3 images"),
        ({"data": (batch for batch in [photos(3)])}, "only once"),
        ({"timed_calls": -1}, "timed_calls"),
    ],
)
def test_bad_input(arguments, message):
    arguments = {"data": photos(3), "timed_calls": 0, "bounds": [0.0], **arguments}
    model = arguments.pop("model", lambda: with_block(conv))()
    with pytest.raises(ValueError, match=message):
        pruning_curve(model, **arguments)
