"""The squeeze hoisted before the preceding 1x1 convolution, where the map has fewer channels.

    z = mean(W3 y + b3) = W3 mean(y) + b3
    W1 z + b1 = (W1 W3) mean(y) + (W1 b3 + b1)

The mean commutes with any operation that is affine at every position. Once batch normalization is
folded, the last convolution of a bottleneck is affine. The block can then read its narrow input (a
quarter of the channels in SE-ResNet, half in SE-ResNeXt), and the gates are known before the wide
map exists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from se_keras.surgery.calls import Call, Graph, needs_no_copy
from se_keras.surgery.change import Change
from se_keras.surgery.excitation import Excitation, find_excitations
from se_keras.surgery.fold import float64
from se_keras.surgery.graph import new_layer, remade
from se_keras.surgery.layer_types import CONVOLUTION_OF_RANK, GLOBAL_AVERAGE_OF_RANK, is_linear

MASKED = "its input comes with a mask, which excludes positions from the mean"
# By class name, because layers and operations share it: these keep the order of the channels.
RESHAPES = ("ExpandDims", "Flatten", "Identity", "Reshape", "Squeeze")
PROJECTIONS = ("Conv1D", "Conv2D", "Conv3D", "Dense")


def hoist_squeezes(graph: Graph) -> tuple[Graph, list[Change]]:
    """Hoists every squeeze before its convolution where that is exact and costs no more.

    Args:
        graph: The graph, with batch normalization folded.

    Returns:
        The new graph, and the change of each SE block.
    """
    replacements: dict[Call, Sequence[Call]] = {}
    changes = []
    for one in find_excitations(graph):
        if not one.is_readable:
            continue
        squeeze = _own_squeeze(graph, one) if one.block is not None else _squeeze(graph, one)
        target = squeeze if isinstance(squeeze, str) else _convolution_before(graph, one, squeeze)
        if isinstance(squeeze, str) or isinstance(target, str):
            changes.append(Change(one.name, "kept", str(target)))
            continue
        changes.append(Change(one.name, "hoisted", target.name))
        if one.block is not None:
            replacements[one.call] = _hoisted(one.call, target)
        else:
            replacements |= _hoisted_layers(one, squeeze, target)
    return graph.rewritten(replacements, {}), changes


def _convolution_before(graph: Graph, one: Excitation, squeeze: Sequence[Call]) -> Call | str:
    """Returns the convolution that the squeeze of a block can precede, or the reason why there is none."""
    before = graph.producer(one.map)
    if before is None:
        return "it follows the model's input"
    if type(before.operation) is not CONVOLUTION_OF_RANK[len(one.map.shape)]:
        return f"{before.name!r} ({type(before.operation).__name__}) precedes it, not a convolution"
    if not graph.is_only_taken_by(one.map, {one.call, squeeze[0]}):
        return f"the output of {before.name!r} is also used elsewhere"
    if graph.takes_mask(before):  # the convolution drops the mask, the mean of its input would not
        return MASKED
    return graph.why_fixed(squeeze[-1]) or graph.why_fixed(before) or _mismatch(one, before.operation) or before


def _own_squeeze(graph: Graph, one: Excitation) -> tuple[Call, ...] | str:
    """Returns the call of an SE layer, which contains its squeeze, or the reason why the squeeze cannot be hoisted."""
    if graph.takes_mask(one.call):
        return MASKED
    if one.call.operation.squeeze != "avg":
        return f"squeeze={one.call.operation.squeeze!r} does not commute with a convolution"
    return (one.call,)


def _squeeze(graph: Graph, one: Excitation) -> tuple[Call, ...] | str:
    """Returns the calls of a block of other layers from the squeeze to the first projection, or why it is kept."""
    if one.source is not one.map:
        return "its squeeze already reads the input of the convolution before it"
    pool, *others = [call for call in one.path if any(x is one.map for x in call.inputs)]
    if others or not _is_mean(pool):
        return f"its squeeze, {pool.name!r} ({type(pool.operation).__name__}), is not the mean over all positions"
    if graph.takes_mask(pool):
        return MASKED
    calls = [pool]
    while not _is_projection(one, calls[-1]):
        following = graph.sole_taker(calls[-1].outputs[0])
        is_plain = following is not None and type(following.operation).__name__ in (*RESHAPES, *PROJECTIONS)
        if following is None or not is_plain or _is_projected(calls[-1]):
            return f"{calls[-1].name!r} precedes no dense layer or 1x1 convolution that takes one number per channel"
        calls.append(following)
    return tuple(calls)


def _is_projected(call: Call) -> bool:
    return type(call.operation).__name__ in PROJECTIONS


def _is_mean(call: Call) -> bool:
    """Returns whether a call is the mean over all positions of a map."""
    operation, rank = call.operation, len(call.inputs[0].shape)
    if type(operation) is GLOBAL_AVERAGE_OF_RANK[rank]:
        return True
    if type(operation).__name__ != "Mean" or operation.axis is None:
        return False
    axes = {axis % rank for axis in np.atleast_1d(operation.axis).tolist()}
    return axes in ({*range(1, rank - 1)}, {*range(2, rank)})


def _is_projection(one: Excitation, call: Call) -> bool:
    """Returns whether a call projects one number per channel of the map, in two axes or in those of the map."""
    layer, shape = call.operation, call.inputs[0].shape
    if type(layer) is layers.Dense:
        return shape[-1] == one.channels and len(shape) in (2, len(one.map.shape))
    is_convolution = type(layer) is CONVOLUTION_OF_RANK[len(one.map.shape)] and len(shape) == len(one.map.shape)
    is_plain = is_convolution and set(layer.kernel_size) == {1} and layer.groups == 1
    return is_plain and shape[one.axis] == one.channels and _is_first(layer) == (one.axis == 1)


def _is_first(layer: Any) -> bool:
    return layer.data_format == "channels_first"


def _mismatch(one: Excitation, layer: Any) -> str:
    """Returns the reason why the squeeze of a block cannot precede a convolution, or ""."""
    if set(layer.kernel_size) != {1} or set(layer.strides) != {1} or layer.groups != 1:
        return f"{layer.name!r} is not a plain 1x1 convolution"
    if not is_linear(layer.activation):
        return f"{layer.name!r} has an activation"
    if _is_first(layer) != (one.axis == 1):
        return f"{layer.name!r} has a different data format"
    before, after = layer.kernel.shape[-2:]
    if before > after:
        return f"{layer.name!r} narrows the map ({before} to {after} channels), so its input costs more"
    return ""


def _hoisted(se: Call, convolution: Call) -> list[Call]:
    block = se.operation
    bias = float64(block.reduce_bias) if block.use_bias else None
    return expanded(se, convolution.inputs[0], *_through(convolution.operation, float64(block.reduce_kernel), bias))


def _through(layer: Any, kernel: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kernel and the bias of a projection that takes the input of a 1x1 convolution, not its output."""
    before = float64(layer.kernel).reshape(layer.kernel.shape[-2:])
    shift = float64(layer.bias) @ kernel if layer.use_bias else np.zeros(kernel.shape[1])
    return before @ kernel, shift if bias is None else shift + bias


def _hoisted_layers(one: Excitation, squeeze: Sequence[Call], convolution: Call) -> dict[Call, Sequence[Call]]:
    """Returns the replacements for the squeeze and the first projection of a block of other layers."""
    pool, *between, projection = squeeze
    layer, source = projection.operation, convolution.inputs[0]
    kernel = float64(layer.kernel)
    bias = float64(layer.bias) if layer.use_bias else None
    kernel, bias = _through(convolution.operation, kernel.reshape(kernel.shape[-2:]), bias)
    average = GLOBAL_AVERAGE_OF_RANK[len(source.shape)](
        keepdims=len(projection.inputs[0].shape) > 2,
        data_format="channels_first" if one.axis == 1 else "channels_last",
        name=pool.name,
        dtype=getattr(pool.operation, "dtype_policy", one.map.dtype),
    )
    squeezed = new_call(average, source)
    shape = (*layer.kernel.shape[:-2], *kernel.shape)
    new = new_layer(remade(layer, use_bias=True), squeezed.outputs[0].shape, [kernel.reshape(shape), bias])
    projected = dataclasses.replace(projection.of(new), args=(squeezed.outputs[0],), kwargs={})
    return {pool: [], **{call: [] for call in between}, projection: [squeezed, projected]}


def expanded(se: Call, source: Any, reduce_kernel: np.ndarray, reduce_bias: np.ndarray) -> list[Call]:
    """Expands an SE block with a mean squeeze into ordinary layers: pooling, two 1x1 convolutions, and a product.

    Args:
        se: The call of the block.
        source: The tensor to squeeze; the product is always with the block's input.
        reduce_kernel: Kernel of the first projection, shape (channels of `source`, units).
        reduce_bias: Its bias, shape (units,).

    Returns:
        The calls that replace the block.
    """
    block, wide = se.operation, se.inputs[0]
    rank = len(source.shape)
    common = {"data_format": block.data_format, "dtype": block.gate_dtype()}

    def project(tensor: Any, name: str, kernel: np.ndarray, biases: list[np.ndarray], activation: Any) -> Call:
        projection = CONVOLUTION_OF_RANK[rank](
            kernel.shape[1], 1, activation=activation, use_bias=bool(biases), name=f"{block.name}_{name}", **common
        )
        return new_call(projection, tensor, [kernel.reshape(*(1,) * (rank - 2), *kernel.shape), *biases])

    squeezed = new_call(GLOBAL_AVERAGE_OF_RANK[rank](keepdims=True, name=f"{block.name}_squeeze", **common), source)
    reduced = project(squeezed.outputs[0], "reduce", reduce_kernel, [reduce_bias], block.activation)
    expand_bias = [float64(block.expand_bias)] if block.use_bias else []
    gate = project(reduced.outputs[0], "expand", float64(block.expand_kernel), expand_bias, block.gate_activation)
    calls = [squeezed, reduced, gate]
    if block.gate_scale != 1.0:
        rescaling = layers.Rescaling(block.gate_scale, name=f"{block.name}_scale", dtype=common["dtype"])
        calls.append(new_call(rescaling, gate.outputs[0]))
    product = layers.Multiply(name=block.name, dtype=block.dtype_policy)
    factors = [wide, calls[-1].outputs[0]]
    product.build([tuple(x.shape) for x in factors])
    return [*calls, Call(product, (factors,), {}, se.outputs, is_new=True)]


def new_call(layer: Any, tensor: Any, weights: Sequence[np.ndarray] = ()) -> Call:
    """Builds a new layer with its weights, and calls it on a symbolic tensor."""
    new_layer(layer, tensor.shape, weights)
    output = keras.KerasTensor(layer.compute_output_shape(tuple(tensor.shape)), dtype=layer.compute_dtype)
    return Call(layer, (tensor,), {}, (output,), is_new=needs_no_copy(layer))
