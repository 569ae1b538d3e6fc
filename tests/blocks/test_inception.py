"""Inception modules: order and widths of the branches, padding, and where SE stands in a residual one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from se_keras import SEConfig
from se_keras.blocks.conv_norm_act import INCEPTION, TORCH
from se_keras.blocks.inception import chain, concatenate, forked_module, module, residual_module

STYLES = {"torch": TORCH, "inception": INCEPTION}
BRANCHES = {"1x1": ((4, 1),), "3x3": ((6, 1), (5, 3))}
REDUCING = {"3x3": ((4, 1), (6, 3, 2)), "double3x3": ((4, 1), (4, 3), (5, 3, 2))}


def same_pool(x):
    return layers.MaxPooling2D(3, 1, padding="same", name="pool")(x)


def valid_pool(x):
    return layers.MaxPooling2D(3, 2, name="pool")(x)


def images(size=(9, 9), channels=3):
    return keras.Input((*size, channels), name="images")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(9, 9), (8, 7), (None, None)])
def test_module_keeps_the_size_and_adds_the_channels(style, size):
    x = module(images(size), BRANCHES, pool=same_pool, name="m", style=STYLES[style])
    assert x.shape == (None, *size, 4 + 5 + 3)


@pytest.mark.parametrize(("padding", "size", "expected"), [("valid", 9, 4), ("valid", 8, 3), ("style", 8, 4)])
def test_padding_of_the_strided_steps(padding, size, expected):
    x = chain(images((size, size)), ((4, 1), (6, 3, 2)), name="c", style=TORCH, strided_padding=padding)
    assert x.shape == (None, expected, expected, 6)


def test_reducing_module_passes_the_pool_through():
    x = module(images(), REDUCING, pool=valid_pool, name="m", style=INCEPTION)
    assert x.shape == (None, 4, 4, 6 + 5 + 3)


def test_branches_are_concatenated_in_their_order(producers):
    inputs = images()
    graph = producers(keras.Model(inputs, module(inputs, BRANCHES, pool=same_pool, name="m", style=TORCH)))
    assert graph["m_concat"] == ["m_1x1_relu1", "m_3x3_relu2", "pool"]
    assert graph["m_1x1_conv1"] == graph["m_3x3_conv1"] == graph["pool"] == ["images"]
    assert graph["m_3x3_conv2"] == ["m_3x3_relu1"]


def test_module_equals_its_branches_computed_alone(rng):
    inputs = images()
    model = keras.Model(inputs, module(inputs, BRANCHES, pool=same_pool, name="m", style=TORCH))
    x = rng.normal(size=(2, 9, 9, 3)).astype("float32")
    outputs = ops.convert_to_numpy(model(x))
    branches = [model.get_layer(name).output for name in ("m_1x1_relu1", "m_3x3_relu2", "pool")]
    parts = keras.Model(inputs, branches)(x)
    for part, columns in zip(parts, (slice(0, 4), slice(4, 9), slice(9, 12)), strict=True):
        np.testing.assert_array_equal(outputs[..., columns], ops.convert_to_numpy(part))
    # The pooling branch and the 1x1 branch by hand; a fresh norm divides by sqrt(1 + epsilon).
    one = np.maximum(x @ ops.convert_to_numpy(model.get_layer("m_1x1_conv1").kernel)[0, 0] / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(outputs[..., :4], one, rtol=1e-4, atol=1e-5)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    largest = np.max([padded[:, i : i + 9, j : j + 9] for i in range(3) for j in range(3)], axis=0)
    np.testing.assert_array_equal(outputs[..., 9:], largest)


def test_forked_module_has_the_widths_of_the_paper(producers):
    inputs = images((4, 4), 8)
    pool = layers.AveragePooling2D(3, 1, padding="same", name="pool")
    model = keras.Model(inputs, forked_module(inputs, pool=pool, name="m", style=INCEPTION))
    assert model.output_shape == (None, 4, 4, 320 + 4 * 384 + 8)
    graph = producers(model)
    forks = [f"m_{branch}_{kernel}_relu1" for branch in ("3x3", "double3x3") for kernel in ("1x3", "3x1")]
    assert graph["m_concat"] == ["m_1x1_relu1", *forks, "pool"]
    assert tuple(model.get_layer("m_3x3_1x3_conv1").kernel.shape) == (1, 3, 384, 384)
    assert tuple(model.get_layer("m_double3x3_3x1_conv1").kernel.shape) == (3, 1, 384, 384)


def residual(se=None, scale=0.5, activation="relu", size=(6, 6)):
    inputs = images(size, 16)
    options = {"scale": scale, "activation": activation, "se": se, "name": "m", "style": INCEPTION}
    return keras.Model(inputs, residual_module(inputs, BRANCHES, **options))


NEIGHBOURS = {
    "standard": (["m_up_conv"], ["m_scale"]),
    "pre": (["images"], ["m_1x1_conv1", "m_3x3_conv1"]),
    "post": (["m_out"], []),
    "identity": (["images"], ["m_add"]),
}


@pytest.mark.parametrize("position", NEIGHBOURS)
def test_position_of_the_se_block_in_a_residual_module(position, producers):
    graph = producers(residual(SEConfig(reduction=4, position=position)))
    readers = sorted(name for name, sources in graph.items() if "m_se" in sources)
    assert (graph["m_se"], readers) == NEIGHBOURS[position]
    assert graph["m_add"] == ["m_scale", "m_se" if position == "identity" else "images"]


@pytest.mark.parametrize("scale", [0.17, 1])
@pytest.mark.parametrize("activation", ["relu", None])
def test_residual_module_adds_the_scaled_branch(scale, activation, rng):
    model = residual(scale=scale, activation=activation)
    x = rng.normal(size=(2, 6, 6, 16)).astype("float32")
    branch = keras.Model(model.inputs[0], model.get_layer("m_up_conv").output)(x)
    expected = scale * ops.convert_to_numpy(branch) + x
    expected = np.maximum(expected, 0) if activation else expected
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, rtol=1e-5, atol=1e-6)
    assert model.get_layer("m_up_conv").use_bias
    assert [any(layer.name == name for layer in model.layers) for name in ("m_scale", "m_out")] == [
        scale != 1,
        activation is not None,
    ]


def test_concatenate_follows_the_data_format():
    assert concatenate([images(), images()], name="a").shape == (None, 9, 9, 6)
    keras.config.set_image_data_format("channels_first")
    assert concatenate([keras.Input((3, 9, 9)), keras.Input((4, 9, 9))], name="b").shape == (None, 7, 9, 9)
