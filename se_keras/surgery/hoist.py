"""The squeeze hoisted before the preceding 1x1 convolution, where the map has fewer channels.

    z = mean(W3 y + b3) = W3 mean(y) + b3
    W1 z + b1 = (W1 W3) mean(y) + (W1 b3 + b1)

The mean commutes with any operation that is affine at every position. Once batch normalization is
folded, the last convolution of a bottleneck is affine. The block can then read its narrow input (a
quarter of the channels in SE-ResNet, half in SE-ResNeXt), and the gates are known before the wide
map exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.change import Change, find_targets
from se_keras.surgery.fold import float64
from se_keras.surgery.graph import new_layer
from se_keras.surgery.layer_types import CONVOLUTION_OF_RANK, GLOBAL_AVERAGE_OF_RANK, is_linear


def hoist_squeezes(graph: Graph) -> tuple[Graph, list[Change]]:
    """Hoists every squeeze before its convolution where that is exact and costs no more.

    Args:
        graph: The graph, with batch normalization folded.

    Returns:
        The new graph, and the change of each SE block.
    """
    targets, changes = find_targets(graph, [SqueezeExcite], _convolution_before, "hoisted")
    return graph.rewritten({se: _hoisted(se, convolution) for se, convolution in targets.items()}, {}), changes


def _convolution_before(graph: Graph, se: Call) -> Call | str:
    """Returns the convolution that the squeeze of a block can precede, or the reason why there is none."""
    if graph.takes_mask(se):
        return "its input comes with a mask, which excludes positions from the mean"
    if se.operation.squeeze != "avg":
        return f"squeeze={se.operation.squeeze!r} does not commute with a convolution"
    before = graph.producer(se.inputs[0])
    if before is not None and type(before.operation) is not CONVOLUTION_OF_RANK[len(se.inputs[0].shape)]:
        return f"{before.name!r} ({type(before.operation).__name__}) precedes it, not a convolution"
    call = graph.sole_producer(se.inputs[0])
    if isinstance(call, str):
        return call
    return graph.why_fixed(se) or graph.why_fixed(call) or _mismatch(se.operation, call.operation) or call


def _mismatch(block: SqueezeExcite, layer: Any) -> str:
    """Returns the reason why the squeeze of a block cannot precede a convolution, or ""."""
    if set(layer.kernel_size) != {1} or set(layer.strides) != {1} or layer.groups != 1:
        return f"{layer.name!r} is not a plain 1x1 convolution"
    if not is_linear(layer.activation):
        return f"{layer.name!r} has an activation"
    if layer.data_format != block.data_format:
        return f"{layer.name!r} has a different data format"
    before, after = layer.kernel.shape[-2:]
    if before > after:
        return f"{layer.name!r} narrows the map ({before} to {after} channels), so its input costs more"
    return ""


def _hoisted(se: Call, convolution: Call) -> list[Call]:
    block, layer = se.operation, convolution.operation
    before, reduce = float64(layer.kernel).reshape(layer.kernel.shape[-2:]), float64(block.reduce_kernel)
    bias = float64(layer.bias) @ reduce if layer.use_bias else np.zeros(reduce.shape[1])
    if block.use_bias:
        bias = bias + float64(block.reduce_bias)
    return expanded(se, convolution.inputs[0], before @ reduce, bias)


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
    return Call(layer, (tensor,), {}, (output,), is_new=True)
