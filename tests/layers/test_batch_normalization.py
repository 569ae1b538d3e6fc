"""The fused batch norm computes what Keras' own computes."""

import keras
import numpy as np
import pytest
from keras import ops

from se_keras.layers import BatchNormalization

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's kernel")


def pair(dtype="float32", **options):
    """Ours and Keras' own with the same random state."""
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 8))
    both = [cls(dtype=dtype, **options) for cls in (BatchNormalization, keras.layers.BatchNormalization)]
    for layer in both:
        layer.build(x.shape)
    values = [np.random.default_rng(1).uniform(0.5, 2, weight.shape) for weight in both[0].weights]
    for layer in both:
        layer.set_weights(values)
    return x.astype("float32"), *both


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"momentum": 0.5, "epsilon": 0.1}])
@pytest.mark.parametrize("training", [True, False])
def test_equals_keras(options, training):
    x, ours, theirs = pair(**options)
    np.testing.assert_allclose(
        ops.convert_to_numpy(ours(x, training=training)),
        ops.convert_to_numpy(theirs(x, training=training)),
        rtol=1e-5,
        atol=1e-5,
    )
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@tensorflow_only
def test_trains_on_keras_before_renormalization():
    x, ours, theirs = pair()
    vars(ours).pop("renorm", None)  # Keras 3.12 and 3.13 do not have it
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), rtol=1e-5, atol=1e-5)


@tensorflow_only
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_keeps_float32_statistics(policy):
    x, ours, theirs = pair(policy)
    assert ours(x, training=True).dtype == theirs(x, training=True).dtype
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=2e-2)


@tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_equal_keras(jit_compile):
    import tensorflow as tf

    x, *both = pair()
    target = np.random.default_rng(2).normal(size=x.shape).astype("float32")

    def gradients(layer):
        @tf.function(jit_compile=jit_compile)
        def compute(images):
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = tf.reduce_sum(layer(images, training=True) * target)
            return tape.gradient(loss, [images, *(variable.value for variable in layer.trainable_variables)])

        return compute(tf.constant(x))

    for a, b in zip(*map(gradients, both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@tensorflow_only
def test_trains_in_one_operation():
    import tensorflow as tf

    x, ours, _ = pair()
    graph = tf.function(lambda images: ours(images, training=True)).get_concrete_function(tf.constant(x)).graph
    operations = {operation.type for operation in graph.get_operations()}
    assert "FusedBatchNormV3" in operations
    assert not operations & {"SquaredDifference", "Mean"}


@pytest.mark.parametrize(
    ("shape", "options"),
    [((4, 6), {}), ((4, 5, 6), {}), ((4, 3, 4, 5, 6), {}), ((4, 5, 6, 8), {"axis": 1})],
    ids=["vectors", "sequences", "volumes", "other axis"],
)
def test_leaves_the_rest_to_keras(shape, options):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    ours, theirs = BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    np.testing.assert_allclose(
        ops.convert_to_numpy(ours(x, training=True)),
        ops.convert_to_numpy(theirs(x, training=True)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_frozen_layer_keeps_its_statistics():
    x, ours, _ = pair()
    before = ours.get_weights()
    ours.trainable = False
    ours(x, training=True)
    for a, b in zip(ours.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_position_has_no_variance():
    layer = BatchNormalization(momentum=0.0)
    layer(np.full((1, 1, 1, 3), 7.0, "float32"), training=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.moving_mean), np.full(3, 7.0))
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.moving_variance), np.zeros(3))
