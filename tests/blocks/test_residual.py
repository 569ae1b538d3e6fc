"""Residual units: SE where the paper draws it, the step where the lineage puts it, and the arithmetic of one unit."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from se_keras import SEConfig
from se_keras.blocks.excitation import POSITIONS
from se_keras.blocks.residual import UnitShape, basic, bottleneck, preact_basic, preact_bottleneck

UNITS = {f.__name__: f for f in (basic, bottleneck, preact_basic, preact_bottleneck)}
SAME = UnitShape(filters=16, width=8, reduce_width=8)
STEP = dataclasses.replace(SAME, strides=2)
WIDER = dataclasses.replace(SAME, filters=32)


def build(unit, shape=SAME, se=None, size=(8, 8), channels=16):
    images = keras.Input((*size, channels), name="images")
    return keras.Model(images, UNITS[unit](images, shape, se, "u"))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (None, None)])
@pytest.mark.parametrize("shape", [SAME, STEP, WIDER], ids=["same", "step", "wider"])
def test_output_shape(unit, size, shape):
    expected = tuple(None if n is None else -(-n // shape.strides) for n in size)
    assert build(unit, shape, SEConfig(), size).output_shape == (None, *expected, shape.filters)


@pytest.mark.parametrize("unit", UNITS)
def test_shortcut_projects_only_when_the_shape_changes(unit):
    def has_projection(shape):
        return any("proj" in layer.name for layer in build(unit, shape).layers)

    assert [has_projection(shape) for shape in (SAME, STEP, WIDER)] == [False, True, True]


# Where the paper's figure 5 (and Table 15 for the 3x3) puts the block: the layer before it, and what reads it.
NEIGHBOURS = {
    "basic": {
        "standard": ("u_bn2", ["u_add"]),
        "pre": ("images", ["u_conv1"]),
        "post": ("u_out", []),
        "identity": ("images", ["u_add"]),
        "conv3x3": ("u_relu1", ["u_conv2"]),
    },
    "bottleneck": {
        "standard": ("u_bn3", ["u_add"]),
        "pre": ("images", ["u_conv1"]),
        "post": ("u_out", []),
        "identity": ("images", ["u_add"]),
        "conv3x3": ("u_relu2", ["u_conv3"]),
    },
    "preact_basic": {
        "standard": ("u_conv2", ["u_add"]),
        "pre": ("u_relu1", ["u_conv1"]),
        "post": ("u_add", []),
        "identity": ("images", ["u_add"]),
        "conv3x3": ("u_relu2", ["u_conv2"]),
    },
    "preact_bottleneck": {
        "standard": ("u_conv3", ["u_add"]),
        "pre": ("u_relu1", ["u_conv1"]),
        "post": ("u_add", []),
        "identity": ("images", ["u_add"]),
        "conv3x3": ("u_relu3", ["u_conv3"]),
    },
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("position", POSITIONS)
def test_position_of_the_se_block(unit, position, producers):
    model = build(unit, se=SEConfig(reduction=4, position=position))
    graph = producers(model)
    before, after = NEIGHBOURS[unit][position]
    assert graph["u_se"] == [before]
    assert [name for name, sources in graph.items() if "u_se" in sources] == after
    assert sum("_se" in layer.name for layer in model.layers) == 1
    # Only "identity" touches the shortcut: otherwise the addition gets the unit's input (or what is left of it).
    assert graph["u_add"][1] == ("u_se" if position == "identity" else "images")


@pytest.mark.parametrize("unit", UNITS)
def test_identity_position_follows_the_projection(unit, producers):
    graph = producers(build(unit, STEP, SEConfig(reduction=4, position="identity")))
    assert graph["u_se"] == ["u_proj_conv" if unit.startswith("preact") else "u_proj_bn"]


@pytest.mark.parametrize("unit", UNITS)
def test_no_config_builds_no_block(unit):
    assert not any("_se" in layer.name for layer in build(unit).layers)


@pytest.mark.parametrize("unit", ["preact_basic", "preact_bottleneck"])
def test_preactivation_shortcut_starts_after_norm_and_relu_only_where_it_projects(unit, producers):
    def shortcut(shape):
        graph = producers(build(unit, shape))
        return graph["u_add"][1], graph.get("u_proj_pad", graph.get("u_proj_conv"))

    assert shortcut(SAME) == ("images", None)
    assert shortcut(WIDER) == ("u_proj_conv", ["u_relu1"])


@pytest.mark.parametrize(("strided_conv", "steps"), [(1, [2, 1, 1]), (2, [1, 2, 1])])
def test_step_of_a_bottleneck_sits_in_the_named_convolution(strided_conv, steps):
    model = build("bottleneck", dataclasses.replace(STEP, strided_conv=strided_conv))
    assert [model.get_layer(f"u_conv{i}").strides[0] for i in (1, 2, 3)] == steps
    assert model.get_layer("u_proj_conv").strides == (2, 2)


def test_widths_groups_and_projection_kernel_of_a_bottleneck():
    shape = UnitShape(filters=64, width=32, reduce_width=16, groups=4, strides=2, projection_kernel=3)
    model = build("bottleneck", shape)
    kernels = {name: tuple(model.get_layer(f"u_{name}").kernel.shape) for name in ("conv1", "conv2", "conv3")}
    assert kernels == {"conv1": (1, 1, 16, 16), "conv2": (3, 3, 4, 32), "conv3": (1, 1, 32, 64)}
    assert tuple(model.get_layer("u_proj_conv").kernel.shape) == (3, 3, 16, 64)


def test_legacy_units_have_a_relu_before_se(producers):
    shape = dataclasses.replace(SAME, relu_before_se=True)
    graph = producers(build("basic", shape, SEConfig(reduction=4)))
    assert (graph["u_se"], graph["u_relu2"]) == (["u_relu2"], ["u_bn2"])


def relu(x):
    return np.maximum(x, 0)


def test_bottleneck_equals_its_formula_on_one_pixel(rng):
    # On a single pixel a 3x3 is its middle tap and the squeeze is the pixel, so that the unit is a few products.
    model = build("bottleneck", dataclasses.replace(WIDER, width=6, reduce_width=5), SEConfig(reduction=8), (1, 1))
    for variable in model.variables:
        if not variable.path.endswith("moving_variance"):
            variable.assign(0.5 * rng.normal(size=variable.shape))
    weights = {variable.path: ops.convert_to_numpy(variable).astype("float64") for variable in model.variables}

    def convolution(name, x):
        kernel = weights[f"u_{name.format('conv')}/kernel"]
        middle = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]
        gamma, beta, mean, variance = (
            weights[f"u_{name.format('bn')}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x @ middle - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    x = rng.normal(size=(2, 16))
    y = convolution("{}3", relu(convolution("{}2", relu(convolution("{}1", x)))))
    hidden = relu(y @ weights["u_se/reduce_kernel"] + weights["u_se/reduce_bias"])
    gate = 1 / (1 + np.exp(-(hidden @ weights["u_se/expand_kernel"] + weights["u_se/expand_bias"])))
    expected = relu(y * gate + convolution("proj_{}", x))
    outputs = ops.convert_to_numpy(model(x.reshape(2, 1, 1, 16).astype("float32")))
    assert (expected > 0).mean() > 0.2, "the comparison says nothing where all is cut off"
    np.testing.assert_allclose(outputs[:, 0, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("position", POSITIONS)
def test_identity_start_equals_the_plain_unit(unit, position, rng):
    # With gates of exactly 1 the unit with SE must be the unit without: nothing else may differ.
    shape = dataclasses.replace(SAME, filters=16)
    plain = build(unit, shape)
    carrying = build(unit, shape, SEConfig(reduction=4, position=position, gate_init="identity"))
    for variable in plain.variables:
        value = rng.normal(size=variable.shape) if "conv" in variable.path else variable.numpy()
        variable.assign(value)
        next(v for v in carrying.variables if v.path == variable.path).assign(value)
    x = rng.normal(size=(2, 8, 8, 16)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(carrying(x)), ops.convert_to_numpy(plain(x)))
