"""The scale of images, multiplied into the convolution that reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers

from se_keras.layers import ImagePreprocessing
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.fold import float64
from se_keras.surgery.graph import new_layer, remade

READERS = (layers.Conv2D, layers.DepthwiseConv2D)
UNSCALED = 1 / 255  # the `std` with which `ImagePreprocessing` only subtracts the mean


def scale_in_kernel(graph: Graph) -> Graph:
    """Divides the kernel of the first convolution, not every pixel, by the standard deviation of the pixels.

    Padding with zeros is not affected, because the mean is still subtracted before it. A multiplication of a map of
    three channels cannot be vectorized well: it accounts for a thirtieth of the time of MobileNetV3-Large in LiteRT.

    Args:
        graph: The graph, with batch normalization folded.

    Returns:
        A graph with the same outputs up to rounding.
    """
    replacements: dict[Call, list[Call]] = {}
    for call in graph.calls:
        reader = _reader(graph, call) if type(call.operation) is ImagePreprocessing else None
        if reader is not None:
            replacements |= {call: [_unscaled(call)], reader: [_scaled(reader, call.operation.std)]}
    return graph.rewritten(replacements, {})


def _reader(graph: Graph, call: Call) -> Call | None:
    """Returns the convolution that is the only reader of the normalized, perhaps padded image, or None."""
    reader = graph.sole_taker(call.outputs[0])
    while reader is not None and type(reader.operation) is layers.ZeroPadding2D:
        reader = graph.sole_taker(reader.outputs[0])
    if reader is None or type(reader.operation) not in READERS or graph.times_called(call.operation) > 1:
        return None
    is_whole = reader.operation.kernel.shape[-2] == len(call.operation.std)  # not in groups
    has_same_axis = reader.operation.data_format == call.operation.data_format
    return reader if is_whole and has_same_axis and not graph.why_fixed(reader) else None


def _unscaled(call: Call) -> Call:
    layer: Any = call.operation
    return call.of(new_layer(remade(layer, std=[UNSCALED] * len(layer.std)), call.inputs[0].shape))


def _scaled(call: Call, std: tuple[float, ...]) -> Call:
    layer: Any = call.operation
    kernel, *bias = (float64(weight) for weight in layer.weights)
    factor = 1 / (255 * np.array(std))
    return call.of(new_layer(remade(layer), call.inputs[0].shape, [kernel * factor[:, None], *bias]))
