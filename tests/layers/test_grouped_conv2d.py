"""GroupedConv2D is Keras' Conv2D with groups: same numbers, same gradients, without the must-compile function."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from se_keras.layers import GroupedConv2D
from se_keras.layers.grouped_conv2d import grouped_matmul

# (kernel size, strides, padding, groups, input size); 12 channels in, 24 out. Odd sizes among them.
CASES = [
    (kernel, strides, padding, groups, size)
    for (kernel, strides), padding, groups, size in itertools.product(
        [(1, 1), (3, 1), (3, 2), (5, 2)], ["same", "valid"], [2, 3, 12], [(8, 8), (7, 9)]
    )
]


def split_and_concatenate(x, kernel, strides, padding):
    """The definition: each group of channels goes through a convolution of its own."""
    groups = x.shape[-1] // kernel.shape[2]
    pieces = zip(ops.split(x, groups, axis=-1), ops.split(kernel, groups, axis=-1), strict=True)
    return ops.concatenate([ops.conv(a, b, strides, padding, "channels_last") for a, b in pieces], axis=-1)


def arrays(kernel, groups, size, rng):
    x = rng.normal(size=(2, *size, 12)).astype("float32")
    return x, rng.normal(size=(kernel, kernel, 12 // groups, 24)).astype("float32") / kernel


@pytest.mark.parametrize(("kernel", "strides", "padding", "groups", "size"), CASES)
def test_output_equals_keras(kernel, strides, padding, groups, size, rng):
    x, weights = arrays(kernel, groups, size, rng)
    bias = rng.normal(size=24)
    options = {"strides": strides, "padding": padding, "groups": groups, "activation": "relu"}
    ours, keras_own = GroupedConv2D(24, kernel, **options), keras.layers.Conv2D(24, kernel, **options)
    for layer in (ours, keras_own):
        layer.build(x.shape)
        layer.set_weights([weights, bias])
    np.testing.assert_allclose(ops.convert_to_numpy(ours(x)), ops.convert_to_numpy(keras_own(x)), rtol=1e-5, atol=1e-5)
    assert ours.compute_output_shape(x.shape) == keras_own.compute_output_shape(x.shape)


@pytest.mark.parametrize(("kernel", "strides", "padding", "groups", "size"), CASES)
def test_grouped_matmul_equals_its_definition(kernel, strides, padding, groups, size, rng):
    x, weights = arrays(kernel, groups, size, rng)
    np.testing.assert_allclose(
        ops.convert_to_numpy(grouped_matmul(x, weights, strides=(strides, strides), padding=padding)),
        ops.convert_to_numpy(split_and_concatenate(x, weights, strides, padding)),
        rtol=1e-5,
        atol=1e-5,
    )


def test_grouped_matmul_takes_uneven_strides(rng):
    x, weights = arrays(3, 3, (9, 8), rng)
    np.testing.assert_allclose(
        ops.convert_to_numpy(grouped_matmul(x, weights, strides=(2, 1), padding="same")),
        ops.convert_to_numpy(split_and_concatenate(x, weights, (2, 1), "same")),
        rtol=1e-5,
        atol=1e-5,
    )


def test_dilation_equals_keras(rng):
    x = rng.normal(size=(2, 9, 8, 12)).astype("float32")
    ours = GroupedConv2D(24, 3, groups=3, dilation_rate=2)
    expected = keras.layers.Conv2D(24, 3, groups=3, dilation_rate=2)
    for layer in (ours, expected):
        layer.build(x.shape)
    expected.set_weights(ours.get_weights())
    np.testing.assert_allclose(ops.convert_to_numpy(ours(x)), ops.convert_to_numpy(expected(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="uses TensorFlow's gradient tape")
@pytest.mark.parametrize("implementation", ["layer", "grouped_matmul"])
@pytest.mark.parametrize(("kernel", "strides", "padding", "groups", "size"), CASES[::5])
def test_gradients_equal_those_of_the_definition(implementation, kernel, strides, padding, groups, size, rng):
    import tensorflow as tf

    x, weights = arrays(kernel, groups, size, rng)
    layer = GroupedConv2D(24, kernel, strides=strides, padding=padding, groups=groups, use_bias=False)
    layer.build(x.shape)

    def gradients(function):
        images, variable = tf.constant(x), tf.constant(weights)
        with tf.GradientTape() as tape:
            tape.watch([images, variable])
            outputs = function(images, variable)
            loss = tf.reduce_sum(
                outputs * tf.cos(tf.reshape(tf.range(outputs.shape.num_elements(), dtype="float32"), outputs.shape))
            )
        return tape.gradient(loss, [images, variable])

    compute = {
        "layer": layer.convolution_op,
        "grouped_matmul": lambda a, b: grouped_matmul(a, b, strides=(strides, strides), padding=padding),
    }[implementation]
    expected = gradients(lambda a, b: split_and_concatenate(a, b, strides, padding))
    for ours, theirs in zip(gradients(compute), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="looks at a TensorFlow graph")
def test_graph_has_no_must_compile_function_and_keras_own_has():
    import tensorflow as tf

    def must_compile(layer):
        layer.build((None, 8, 8, 12))
        graph = tf.function(layer).get_concrete_function(tf.TensorSpec((None, 8, 8, 12))).graph.as_graph_def()
        functions = graph.library.function
        return [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]

    assert must_compile(keras.layers.Conv2D(24, 3, groups=3)), "the check no longer sees what it is meant to see"
    assert must_compile(GroupedConv2D(24, 3, groups=3)) == []


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA of TensorFlow")
@pytest.mark.parametrize("jit_compile", [False, "auto"])
def test_training_on_a_cpu_does_not_use_xla(jit_compile, rng):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("on a GPU XLA is welcome")
    layer = GroupedConv2D(12, 3, groups=3)
    model = keras.Sequential([keras.Input((8, 8, 12)), layer, keras.layers.GlobalAveragePooling2D()])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    before = layer.get_weights()
    model.fit(rng.normal(size=(8, 8, 8, 12)), rng.normal(size=(8, 12)), verbose=0)
    assert model.jit_compile is False
    assert layer.supports_jit is False
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.jit_compile = True
    assert all(not np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True))


def test_saved_model_computes_the_same(tmp_path, rng):
    inputs = keras.Input((None, None, 12))
    model = keras.Model(inputs, GroupedConv2D(24, 3, strides=2, padding="same", groups=3, name="conv")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(2, 7, 9, 12)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(model(x)))
    assert loaded.get_layer("conv").get_config() == model.get_layer("conv").get_config()


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match=r"(?s)channels.*divisible by the number of groups.*5"):
        GroupedConv2D(10, 3, groups=5).build((None, 8, 8, 12))


TRAIN = """
    import keras, numpy as np
    from keras import ops
    from se_keras.layers import GroupedConv2D

    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 9, 7, 12)).astype("float32")
    ours, theirs = (kind(24, 3, strides=2, groups=3, padding="same") for kind in (GroupedConv2D, keras.layers.Conv2D))
    ours.build(x.shape), theirs.build(x.shape)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ops.convert_to_numpy(ours(x)), ops.convert_to_numpy(theirs(x)), rtol=1e-5, atol=1e-5)

    model = keras.Sequential([keras.Input((None, None, 12)), ours])
    model.compile("sgd", "mse", jit_compile={jit_compile})
    before = [np.array(ops.convert_to_numpy(weight)) for weight in ours.weights]
    model.fit(x, rng.normal(size=(4, 5, 4, 24)), batch_size=4, verbose=0)
    after = [ops.convert_to_numpy(weight) for weight in ours.weights]
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    print("trained on", keras.backend.backend())
"""


@pytest.mark.slow
def test_trains_where_tensorflow_lacks_the_grouped_gradient(run_python):
    # Without oneDNN, TensorFlow's CPU kernel has no gradient with groups: the layer must notice.
    check = """
    from se_keras.layers.grouped_conv2d import _tensorflow_is_native
    from se_keras.layers.tensorflow_devices import tensorflow_has_gpu

    assert tensorflow_has_gpu() or not _tensorflow_is_native()
    """
    code = TRAIN.format(jit_compile=False) + check
    assert "trained on tensorflow" in run_python(code, KERAS_BACKEND="tensorflow", TF_ENABLE_ONEDNN_OPTS="0")


@pytest.mark.slow
def test_trains_on_jax(run_warm):
    assert "trained on jax" in run_warm(TRAIN.format(jit_compile=True), "jax")
