"""Rewrites of operations that GPUs compute incorrectly; values stay the same, and time on CPUs about the same.

Both faults occur with LiteRT 2.3 through WebGPU; docs/exports-on-a-gpu.md has the evidence.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from se_keras.layers import GroupedConv2D
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.graph import new_layer, remade, rewritten_inside

LEAST_GROUP = 4  # channels: GPU vectors hold four


def gpu_form(graph: Graph) -> Graph:
    """Rewrites average pools that count a padded border, and grouped convolutions with narrow groups.

    LiteRT's GPU runtime merges padding and pool, and then divides by the number of positions inside
    the map only. Such pools become depthwise convolutions with equal weights. Groups whose input or
    output channels are not a multiple of four give wrong results or crash the process. Adjacent
    groups are joined, with zeros between them.

    Args:
        graph: The graph.

    Returns:
        A graph with the same outputs up to rounding. Groups that cannot be joined to multiples of four are unchanged.
    """
    graph = rewritten_inside(graph, lambda inner, _: gpu_form(inner))
    replacements = {}
    for call in graph.calls:
        if _counts_padding(graph, call):
            replacements[call] = [_convolution(call)]
        elif type(call.operation) in (GroupedConv2D, layers.Conv2D) and joined_groups(call.operation) > 1:
            replacements[call] = [_with_wider_groups(call)]
    return graph.rewritten(replacements, {})


def _counts_padding(graph: Graph, call: Call) -> bool:
    pool = call.operation
    if type(pool) is not layers.AveragePooling2D or pool.padding != "valid" or len(set(pool.strides)) > 1:
        return False
    before = graph.producer(call.inputs[0])
    return before is not None and isinstance(before.operation, layers.ZeroPadding2D)


def _convolution(call: Call) -> Call:
    pool: Any = call.operation
    (tensor,) = call.inputs
    channels = tensor.shape[-1 if pool.data_format == "channels_last" else 1]
    convolution = layers.DepthwiseConv2D(
        pool.pool_size,
        pool.strides,
        use_bias=False,
        data_format=pool.data_format,
        dtype=pool.dtype_policy,
        name=pool.name,
    )
    kernel = np.full((*pool.pool_size, channels, 1), 1 / np.prod(pool.pool_size), "float32")
    return Call(new_layer(convolution, tensor.shape, [kernel]), (tensor,), {}, call.outputs, is_new=True)


def joined_groups(convolution: Any) -> int:
    """Returns how many adjacent groups of a convolution must be joined for widths that GPUs support.

    Args:
        convolution: A convolution that has been built.

    Returns:
        The number; 1 if the groups are wide enough, there are none, or no number works.
    """
    groups, width = convolution.groups, convolution.kernel.shape[-2]
    widths = (width, convolution.filters // groups)
    fits = (n for n in range(1, groups + 1) if groups % n == 0 and all(n * size % LEAST_GROUP == 0 for size in widths))
    return next(fits, 1) if groups > 1 else 1


def _with_wider_groups(call: Call) -> Call:
    layer: Any = call.operation
    joined = joined_groups(layer)
    kernel = np.asarray(keras.ops.convert_to_numpy(layer.kernel))
    *window, width, filters = kernel.shape
    wide = np.zeros((*window, joined, width, layer.groups // joined, joined, filters // layer.groups), kernel.dtype)
    narrow = kernel.reshape(*window, width, layer.groups // joined, joined, filters // layer.groups)
    for number in range(joined):
        wide[..., number, :, :, number, :] = narrow[..., number, :]
    weights = [wide.reshape(*window, joined * width, filters)]
    if layer.use_bias:
        weights.append(keras.ops.convert_to_numpy(layer.bias))
    wider = new_layer(remade(layer, groups=layer.groups // joined), call.inputs[0].shape, weights)
    return Call(wider, call.inputs, {}, call.outputs, is_new=True)
