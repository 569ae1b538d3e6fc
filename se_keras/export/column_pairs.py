"""The first convolution of an integer file, over pairs of columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers

from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.fold import float64
from se_keras.surgery.graph import new_layer, remade
from se_keras.surgery.hoist import new_call

MOST_CHANNELS = 3  # two columns of them still fit into eight numbers


def in_column_pairs(graph: Graph) -> Graph:
    """Joins adjacent columns of images whose convolution moves by two columns.

    An image of shape (height, width, 3) is also one of shape (height, width / 2, 6). LiteRT's 8-bit kernels, which
    multiply eight channels at a time, need about half as many multiplications for it.

    Args:
        graph: The graph.

    Returns:
        A graph with the same outputs up to rounding.
    """
    replacements: dict[Call, list[Call]] = {}
    for call in graph.calls:
        if _moves_by_pairs(graph, call):
            replacements |= _joined(graph, call)
    return graph.rewritten(replacements, {})


def _moves_by_pairs(graph: Graph, call: Call) -> bool:
    layer = call.operation
    if type(layer) is not layers.Conv2D or layer.data_format != "channels_last" or graph.why_fixed(call):
        return False
    tensor = _unpadded(graph, call)[0]
    return (
        tensor.shape[-1] <= MOST_CHANNELS
        and layer.groups == 1
        and layer.strides[1] == 2
        and set(layer.dilation_rate) == {1}
        and None not in tensor.shape[1:]
        and tensor.shape[2] % 2 == 0
    )


def _unpadded(graph: Graph, call: Call) -> tuple[Any, list[Call]]:
    """Returns the image in front of a convolution, and the paddings between them that nothing else reads."""
    tensor, paddings = call.inputs[0], []
    producer = graph.producer(tensor)
    while (
        producer is not None
        and type(producer.operation) is layers.ZeroPadding2D
        and producer.operation.data_format == "channels_last"
        and graph.sole_taker(tensor) is not None
    ):
        paddings.append(producer)
        tensor = producer.inputs[0]
        producer = graph.producer(tensor)
    return tensor, paddings


def _joined(graph: Graph, call: Call) -> dict[Call, list[Call]]:
    convolution: Any = call.operation
    tensor, paddings = _unpadded(graph, call)
    _, height, width, channels = tensor.shape
    rows, columns = np.sum([one.operation.padding for one in paddings] + [_own_padding(call)], axis=0).tolist()
    kernel, *bias = (float64(weight) for weight in convolution.weights)
    left = -(-columns[0] // 2)
    skipped = 2 * left - columns[0]  # the first column of a pair, if padding is odd
    pairs = -(-(skipped + kernel.shape[1]) // 2)
    wide = np.zeros((len(kernel), 2 * pairs, *kernel.shape[2:]))
    wide[:, skipped : skipped + kernel.shape[1]] = kernel
    right = call.outputs[0].shape[2] + pairs - 1 - left - width // 2
    reshape = new_call(layers.Reshape((height, width // 2, 2 * channels), name=f"{call.name}_pairs"), tensor)
    padding = layers.ZeroPadding2D((rows, (left, right)), data_format="channels_last", name=f"{call.name}_pairs_pad")
    padded = new_call(padding, reshape.outputs[0])
    layer = remade(convolution, kernel_size=(len(kernel), pairs), strides=(convolution.strides[0], 1), padding="valid")
    weights = [wide.reshape(len(kernel), pairs, 2 * channels, -1), *bias]
    moved = call.of(new_layer(layer, padded.outputs[0].shape, weights))
    return {
        call: [reshape, padded, dataclasses.replace(moved, args=padded.outputs, kwargs={})],
        **{one: [] for one in paddings},
    }


def _own_padding(call: Call) -> list[Sequence[int]]:
    """Returns what a convolution adds to rows and columns itself, before and after them."""
    convolution: Any = call.operation
    if convolution.padding != "same":
        return [(0, 0), (0, 0)]
    sides = zip(call.inputs[0].shape[1:3], convolution.kernel_size, convolution.strides, strict=True)
    totals = [max((-(-length // step) - 1) * step + size - length, 0) for length, size, step in sides]
    return [(total // 2, total - total // 2) for total in totals]
