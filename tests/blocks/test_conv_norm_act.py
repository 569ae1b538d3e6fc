"""The padding rule at even and odd sizes, and the constants of the norms."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from se_keras.blocks.conv_norm_act import (
    INCEPTION,
    TENSORFLOW,
    TORCH,
    channel_axis,
    channels_of,
    conv,
    conv_norm_act,
    depthwise_conv,
    norm_act,
)
from se_keras.layers import GroupedConv2D


def test_norm_constants_are_those_of_the_originals():
    # Keras' momentum is one minus torch's and Caffe's: 0.1 there.
    numbers = {name: (s.epsilon, s.momentum, s.scale, s.symmetric) for name, s in STYLES.items()}
    assert numbers == {
        "torch": (1e-5, 0.9, True, True),
        "tensorflow": (1e-3, 0.99, True, False),
        "inception": (1e-3, 0.99, False, False),
    }


STYLES = {"torch": TORCH, "tensorflow": TENSORFLOW, "inception": INCEPTION}


@pytest.mark.parametrize("style", STYLES)
def test_norm_layer_has_the_constants_of_its_style(style):
    x = keras.Input((4, 4, 8))
    norm = norm_act(x, name="a_{}", style=STYLES[style], activation=None)._keras_history.operation
    assert isinstance(norm, layers.BatchNormalization)
    assert norm.name == "a_bn"
    expected = STYLES[style]
    assert (norm.epsilon, norm.momentum, norm.scale) == (expected.epsilon, expected.momentum, expected.scale)
    assert norm.center
    assert norm.axis in (-1, 3)


def reference_convolution(x, kernel, strides, pads):
    """Straight from the definition: `pads` pixels before and after, then a sum under each position of the kernel."""
    x = np.pad(x, ((0, 0), pads[0], pads[1], (0, 0)))
    height, width = kernel.shape[:2]
    rows = range(0, x.shape[1] - height + 1, strides)
    columns = range(0, x.shape[2] - width + 1, strides)
    return np.stack(
        [np.stack([np.einsum("bhwc,hwcf->bf", x[:, i : i + height, j : j + width], kernel) for j in columns], 1)
         for i in rows],
        axis=1,
    )  # fmt: skip


def tensorflow_pads(size, kernel, strides):
    total = max((-(-size // strides) - 1) * strides + kernel - size, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("style", ["torch", "tensorflow"])
def test_convolution_pads_as_its_style_says(size, kernel, strides, style, rng):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, conv(inputs, 3, kernel, name="a_{}", strides=strides, style=STYLES[style]))
    model.set_weights([rng.normal(size=(kernel, kernel, 2, 3)) / kernel])
    x = rng.normal(size=(1, size, size + 2, 2))
    pads = {
        "torch": ((kernel // 2,) * 2, (kernel // 2,) * 2),
        "tensorflow": (tensorflow_pads(size, kernel, strides), tensorflow_pads(size + 2, kernel, strides)),
    }[style]
    expected = reference_convolution(x, model.get_weights()[0], strides, pads)
    assert expected.shape[1:3] == (-(-size // strides), -(-(size + 2) // strides))
    np.testing.assert_allclose(ops.convert_to_numpy(model(x.astype("float32"))), expected, rtol=1e-4, atol=1e-5)


def test_styles_differ_only_for_strided_convolutions_on_even_sizes(rng):
    # On an odd size TensorFlow's "same" is symmetric, so that only even sizes tell the two apart.
    weights = [rng.normal(size=(3, 3, 2, 3))]
    for size, strides, equal in [(8, 2, False), (9, 2, True), (8, 1, True), (9, 1, True)]:
        x = rng.normal(size=(1, size, size, 2)).astype("float32")
        outputs = []
        for style in (TORCH, TENSORFLOW):
            inputs = keras.Input((size, size, 2))
            model = keras.Model(inputs, conv(inputs, 3, 3, name="a_{}", strides=strides, style=style))
            model.set_weights(weights)
            outputs.append(ops.convert_to_numpy(model(x)))
        assert np.allclose(*outputs, atol=1e-5) is equal, (size, strides)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("strides", [1, 2])
def test_depthwise_convolution_pads_symmetrically(size, strides, rng):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, depthwise_conv(inputs, 3, name="a_{}", strides=strides))
    model.set_weights([rng.normal(size=(3, 3, 2, 1))])
    kernel = np.zeros((3, 3, 2, 2))
    for channel in range(2):
        kernel[:, :, channel, channel] = model.get_weights()[0][:, :, channel, 0]
    x = rng.normal(size=(1, size, size, 2))
    expected = reference_convolution(x, kernel, strides, ((1, 1), (1, 1)))
    np.testing.assert_allclose(ops.convert_to_numpy(model(x.astype("float32"))), expected, rtol=1e-4, atol=1e-5)


def test_valid_padding_and_rectangular_kernels():
    x = keras.Input((9, 9, 4))
    assert conv(x, 5, 3, name="a_{}", padding="valid").shape == (None, 7, 7, 5)
    assert conv(x, 5, 3, name="b_{}", padding="valid", strides=2).shape == (None, 4, 4, 5)
    assert conv(x, 5, (1, 7), name="c_{}").shape == (None, 9, 9, 5)


def test_layers_are_named_and_have_no_bias_unless_asked():
    inputs = keras.Input((8, 8, 4))
    x = conv_norm_act(inputs, 6, 3, name="unit_{}1", strides=2)
    model = keras.Model(inputs, x)
    assert [layer.name for layer in model.layers[1:]] == ["unit_pad1", "unit_conv1", "unit_bn1", "unit_relu1"]
    assert not model.get_layer("unit_conv1").use_bias
    assert conv(inputs, 6, name="b_{}", use_bias=True)._keras_history.operation.use_bias


def test_groups_use_the_grouped_layer_and_one_group_does_not():
    x = keras.Input((8, 8, 4))
    assert isinstance(conv(x, 8, 3, name="a_{}", groups=2)._keras_history.operation, GroupedConv2D)
    assert not isinstance(conv(x, 8, 3, name="b_{}")._keras_history.operation, GroupedConv2D)


@pytest.mark.parametrize("activation", ["relu", "relu6", None])
def test_norm_act_equals_batch_norm_by_hand(activation, rng):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, norm_act(inputs, name="a_{}", activation=activation))
    gamma, beta, mean, variance = np.array([[2, -3], [1, 5], [0.5, -1], [4, 0.25]], "float32")
    model.set_weights([gamma, beta, mean, variance])
    x = rng.normal(size=(2, 3, 3, 2)).astype("float32")
    expected = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    bounds = {"relu": (0, None), "relu6": (0, 6), None: (None, None)}[activation]
    expected = expected if activation is None else np.clip(expected, *bounds)
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, rtol=1e-5, atol=1e-5)


def test_channel_axis_follows_the_data_format():
    assert channel_axis() == -1
    assert channels_of(keras.Input((4, 5, 6))) == 6
    keras.config.set_image_data_format("channels_first")
    assert channel_axis() == 1
    assert channels_of(keras.Input((4, 5, 6))) == 4
