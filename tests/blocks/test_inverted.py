"""Inverted residual blocks: shapes, where SE is, and when the input is added."""

import keras
import numpy as np
import pytest

from se_keras import SEConfig, SqueezeExcite
from se_keras.blocks.conv_norm_act import TENSORFLOW, TORCH
from se_keras.blocks.excitation import divisible, new_block
from se_keras.blocks.inverted import (
    InvertedShape,
    fused_residual,
    inverted_residual,
    plain_residual,
    separable_residual,
)
from se_keras.blocks.residual import UnitShape, regnet_unit

BLOCKS = (separable_residual, inverted_residual, fused_residual, plain_residual)


def built(block, se=None, size=(9, 8), **numbers):
    inputs = keras.Input((*size, 8))
    shape = InvertedShape(**{"filters": 8, "expanded": 24, "units": 2, **numbers})
    return keras.Model(inputs, block(inputs, shape, se, "block1a"))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("style", [TORCH, TENSORFLOW])
@pytest.mark.parametrize(("strides", "kernel_size"), [(1, 3), (2, 3), (2, 5)])
def test_sizes_are_rounded_up(block, style, strides, kernel_size):
    model = built(block, filters=16, strides=strides, kernel_size=kernel_size, style=style)
    assert model.output_shape == (None, -(-9 // strides), -(-8 // strides), 16)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_input_is_added_where_the_shape_stays(block):
    def adds(**numbers):
        return any(isinstance(layer, keras.layers.Add) for layer in built(block, **numbers).layers)

    assert adds()
    assert not adds(strides=2)
    assert not adds(filters=16)
    assert not adds(shortcut=False)


@pytest.mark.parametrize("block", BLOCKS)
def test_se_has_the_units_of_the_shape(block):
    found = [layer for layer in built(block, SEConfig()).layers if isinstance(layer, SqueezeExcite)]
    expected = {separable_residual: [(8, 2)], plain_residual: []}.get(block, [(24, 2)])
    assert [layer.reduce_kernel.shape for layer in found] == expected


def test_the_unit_of_regnet_sizes_se_by_its_input():
    inputs = keras.Input((8, 8, 16))
    shape = UnitShape(filters=32, width=32, reduce_width=32, groups=2, strides=2)
    model = keras.Model(inputs, regnet_unit(inputs, shape, SEConfig(reduction=4), "stage2_block1"))
    assert model.output_shape == (None, 4, 4, 32)
    assert model.get_layer("stage2_block1_se").reduce_kernel.shape == (32, 4)


def test_a_new_block_has_the_config_and_the_paper_s_values_where_it_states_none():
    block = new_block(SEConfig(squeeze="max", gate_activation="hard_sigmoid"), 3, name="se")
    block.build((None, 4, 4, 12))
    assert (block.reduction, block.squeeze, block.name) == (16, "max", "se")
    assert block.reduce_kernel.shape == (12, 3)
    outputs = block(np.ones((1, 4, 4, 12), "float32"))
    assert outputs.shape == (1, 4, 4, 12)


@pytest.mark.parametrize(
    ("size", "divisor", "least_fill", "result"),
    [(18, 8, 0.9, 24), (18, 8, 0.0, 16), (4, 8, 0.9, 8), (20, 8, 0.9, 24), (136, 16, 0.9, 144), (6.5, 1, 0.9, 7)],
)
def test_the_nearest_multiple_keeps_the_least_fill(size, divisor, least_fill, result):
    assert divisible(size, divisor, least_fill=least_fill) == result
