"""Normalization of images by whole rows of pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from se_keras.layers import ImagePreprocessing
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.fold import float64
from se_keras.surgery.graph import rewritten_inside
from se_keras.surgery.hoist import new_call

Channels = tuple[float, ...]


class RowNormalization(layers.Layer):
    """A layer that multiplies and shifts each channel of an image, one row of pixels at a time.

    Args:
        factor: The factor of each channel.
        offset: What is then added to each channel.

    Input shape:
        (batch, height, width, channels), where the width is fixed.

    Output shape:
        Same as the input shape, in float32.
    """

    def __init__(self, factor: Sequence[float], offset: Sequence[float], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.factor, self.offset = tuple(factor), tuple(offset)

    @property
    def mean(self) -> np.ndarray:
        """Returns the value of each channel that becomes 0."""
        return -np.array(self.offset) / np.array(self.factor)

    def call(self, inputs: Any) -> Any:
        _, height, width, channels = inputs.shape
        rows = ops.reshape(ops.cast(inputs, "float32"), (-1, height, 1, width * channels))
        if set(self.factor) != {1.0}:
            rows = rows * _constant(self.factor, width)
        return ops.reshape(rows + _constant(self.offset, width), (-1, height, width, channels))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)


def normalized_by_rows(graph: Graph) -> Graph:
    """Replaces layers that normalize the channels of images.

    LiteRT adds three numbers to a map of three channels slowly, above all in 8 bits, and a long vector fast.

    Args:
        graph: The graph, after `scale_in_kernel`.

    Returns:
        A graph with the same outputs. Images of unknown size and channels-first images are unchanged.
    """
    graph = rewritten_inside(graph, lambda inner, _: normalized_by_rows(inner))
    replacements: dict[Call, list[Call]] = {}
    for call in graph.calls:
        affine = _affine(call.operation)
        if affine is not None and len(call.inputs) == 1 and _is_fixed_image(call.inputs[0], len(affine[0])):
            layer = RowNormalization(*affine, name=call.name, dtype=call.operation.dtype_policy)
            replacements[call] = [dataclasses.replace(new_call(layer, call.inputs[0]), outputs=call.outputs)]
    return graph.rewritten(replacements, {})


def _affine(layer: Any) -> tuple[Channels, Channels] | None:
    """Returns the factor and the offset of each channel, or None for other layers."""
    if type(layer) is ImagePreprocessing and layer.data_format == "channels_last":
        mean, std = 255 * np.array(layer.mean), 255 * np.array(layer.std)
    elif type(layer) is layers.Normalization and not layer.invert and layer.axis in ((-1,), (3,)):
        mean = float64(layer.mean).reshape(-1)
        std = np.maximum(np.sqrt(float64(layer.variance)), keras.config.epsilon()).reshape(-1)
    else:
        return None
    is_needed = len(mean) > 1 and (mean.any() or (std != 1).any())
    return (tuple((1 / std).tolist()), tuple((-mean / std).tolist())) if is_needed else None


def _is_fixed_image(tensor: Any, channels: int) -> bool:
    shape = tensor.shape
    return len(shape) == 4 and None not in shape[1:] and shape[-1] == channels


def _constant(values: Channels, width: int) -> Any:
    return ops.convert_to_tensor(np.tile(np.array(values, "float32"), width))
