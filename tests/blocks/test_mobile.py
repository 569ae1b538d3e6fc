"""The units of MobileNet and ShuffleNet: sizes, widths, the place of SE, and their shortcuts."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from se_keras import SEConfig
from se_keras.blocks.mobile import separable, shuffle_unit
from se_keras.layers import ChannelShuffle, GroupedConv2D


def mobile_unit(strides=1, se=None, size=(8, 8), filters=32):
    images = keras.Input((*size, 16), name="images")
    return keras.Model(images, separable(images, filters, strides=strides, se=se, name="u"))


def shuffle(strides=1, se=None, size=(8, 8), filters=24, first_groups=3, channels=None):
    images = keras.Input((*size, channels or (filters if strides == 1 else 12)), name="images")
    options = {"strides": strides, "groups": 3, "first_groups": first_groups, "se": se, "name": "u"}
    return keras.Model(images, shuffle_unit(images, filters, **options))


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (None, None)])
def test_output_shape(strides, size):
    # A step of MobileNet rounds an odd size down, as keras.applications' does; one of ShuffleNet rounds it up.
    down = tuple(n and n // strides for n in size)
    up = tuple(n and -(-n // strides) for n in size)
    assert mobile_unit(strides, SEConfig(reduction=4), size).output_shape == (None, *down, 32)
    assert shuffle(strides, SEConfig(reduction=4), size).output_shape == (None, *up, 24)


def test_se_follows_the_pointwise_convolution_of_mobilenet(producers):
    graph = producers(mobile_unit(se=SEConfig()))
    assert graph["u_se"] == ["u_pointwise_relu"]
    assert list(graph)[-1] == "u_se"
    assert "u_se" not in producers(mobile_unit())


def test_strided_mobilenet_unit_pads_after_only(rng):
    # As the original: also on an odd size, where TensorFlow's "same" would pad on both sides.
    model = mobile_unit(2, size=(7, 7))
    x = rng.normal(size=(1, 7, 7, 16)).astype("float32")
    kernel = ops.convert_to_numpy(model.get_layer("u_depthwise_conv").kernel)[..., 0]
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    windows = [[(padded[0, i : i + 3, j : j + 3] * kernel).sum((0, 1)) for j in (0, 2, 4)] for i in (0, 2, 4)]
    depthwise = keras.Model(model.inputs[0], model.get_layer("u_depthwise_conv").output)
    outputs = ops.convert_to_numpy(depthwise(x))[0]
    assert outputs.shape == (3, 3, 16)
    np.testing.assert_allclose(outputs, windows, rtol=1e-4, atol=1e-5)


def test_mobilenet_unit_cuts_at_6(rng):
    model = mobile_unit()
    outputs = ops.convert_to_numpy(model(1000 * rng.normal(size=(2, 8, 8, 16)).astype("float32")))
    assert (outputs.min(), outputs.max()) == (0, 6)


@pytest.mark.parametrize("strides", [1, 2])
def test_se_stands_at_the_end_of_the_shuffle_branch(strides, producers):
    graph = producers(shuffle(strides, SEConfig(reduction=4)))
    assert graph["u_se"] == ["u_bn3"]
    if strides == 1:
        assert graph["u_add"] == ["u_se", "images"]
    else:
        assert graph["u_concat"] == ["u_pool", "u_se"]


def test_branch_of_a_reducing_shuffle_unit_leaves_room_for_the_shortcut():
    model = shuffle(2, SEConfig(reduction=4))
    assert model.get_layer("u_se").output.shape[-1] == 24 - 12
    outputs = model(np.ones((1, 8, 8, 12), "float32"))
    assert outputs.shape == (1, 4, 4, 24)


def test_pooled_shortcut_counts_the_padding(rng):
    model = shuffle(2, size=(7, 9))
    x = rng.normal(size=(1, 7, 9, 12)).astype("float32")
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    means = [[padded[0, i : i + 3, j : j + 3].sum((0, 1)) / 9 for j in range(0, 9, 2)] for i in range(0, 7, 2)]
    outputs = ops.convert_to_numpy(model(x))[0]
    np.testing.assert_allclose(outputs[..., :12], np.maximum(means, 0), rtol=1e-5, atol=1e-6)


def test_widths_and_groups_of_a_shuffle_unit():
    model = shuffle(1, first_groups=1)
    assert tuple(model.get_layer("u_conv1").kernel.shape) == (1, 1, 24, 6)  # first_groups=1: dense; a quarter wide
    assert not isinstance(model.get_layer("u_conv1"), GroupedConv2D)
    assert model.get_layer("u_conv3").groups == 3
    assert tuple(model.get_layer("u_conv3").kernel.shape) == (1, 1, 2, 24)
    assert isinstance(model.get_layer("u_shuffle"), ChannelShuffle)
    assert model.get_layer("u_shuffle").groups == 3


def test_shuffle_unit_has_no_relu_behind_the_depthwise_convolution(producers):
    graph = producers(shuffle(1))
    assert graph["u_conv3"] == ["u_bn2"]
    assert graph["u_out"] == ["u_add"]


@pytest.mark.parametrize("unit", [mobile_unit, shuffle])
def test_identity_start_equals_the_plain_unit(unit, rng):
    plain, carrying = unit(), unit(se=SEConfig(reduction=4, gate_init="identity"))
    for variable in plain.variables:
        next(v for v in carrying.variables if v.path == variable.path).assign(variable)
    x = rng.normal(size=(2, *plain.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(carrying(x)), ops.convert_to_numpy(plain(x)))
