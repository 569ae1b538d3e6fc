"""Batch normalization folded into the preceding convolution or dense layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from se_keras.layers import BatchNormalization, GroupedConv2D
from se_keras.surgery.graph import Call, Graph, new_layer, remade
from se_keras.surgery.layer_facts import why_weights_are_fixed


def _last_axis(kernel: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return kernel * factor


def _transposed(kernel: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return kernel * factor[:, None]


def _depthwise(kernel: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return kernel * factor.reshape(kernel.shape[-2:])


# How a factor per output channel is multiplied into a layer's last kernel.
SCALE_KERNEL: dict[type, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    layers.Dense: _last_axis,
    layers.Conv1D: _last_axis,
    layers.Conv2D: _last_axis,
    layers.Conv3D: _last_axis,
    GroupedConv2D: _last_axis,
    layers.SeparableConv1D: _last_axis,
    layers.SeparableConv2D: _last_axis,
    layers.DepthwiseConv1D: _depthwise,
    layers.DepthwiseConv2D: _depthwise,
    layers.Conv1DTranspose: _transposed,
    layers.Conv2DTranspose: _transposed,
    layers.Conv3DTranspose: _transposed,
}

# An affine map per channel passes through these unchanged: they pick, repeat, or average positions.
TRANSPARENT = (
    layers.Identity,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.UpSampling1D,
    layers.UpSampling3D,
)
BATCH_NORMS = (layers.BatchNormalization, BatchNormalization)
ALWAYS_TRAINS = "it was called with training=True, which also holds at inference"
PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)


@dataclasses.dataclass(frozen=True)
class Affine:
    """A batch normalization at inference: x * factor + shift, each of shape (channels,), float64."""

    factor: np.ndarray
    shift: np.ndarray


def affine_of(norm: layers.BatchNormalization) -> Affine:
    """Returns the inference form of a built batch normalization, from its moving statistics."""
    mean, variance = float64(norm.moving_mean), float64(norm.moving_variance)
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * float64(norm.gamma)
    shift = -mean * factor
    if norm.center:
        shift = shift + float64(norm.beta)
    return Affine(factor, shift)


def fold_batch_norms(graph: Graph) -> tuple[Graph, list[tuple[Call, Call]], list[tuple[Call, str]]]:
    """Folds every batch normalization for which that is exact.

    Args:
        graph: The graph.

    Returns:
        The new graph; the pairs (batch normalization, layer it was folded into); and the batch
        normalizations that were kept, each with the reason.
    """
    producers, consumers, times = graph.producers(), graph.consumers(), graph.times_called()
    replacements: dict[Call, Sequence[Call]] = {}
    aliases: dict[int, Any] = {}
    folded, kept = [], []
    for call in graph.calls:
        if type(call.operation) not in BATCH_NORMS:
            continue
        target, reason = _target(call, producers, consumers, times, set(replacements))
        if target is None:
            kept.append((call, reason))
            continue
        replacements[target] = [_with_affine(target, affine_of(call.operation))]
        replacements[call] = []
        aliases[id(call.outputs[0])] = call.inputs[0]
        folded.append((call, target))
    return graph.rewritten(replacements, aliases), folded, kept


def _target(norm: Call, producers: dict, consumers: dict, times: dict, taken: set[Call]) -> tuple[Call | None, str]:
    """Returns the layer that a batch normalization can be folded into, or None and the reason."""
    if times[id(norm.operation)] > 1:
        return None, "it is shared by several calls"
    if norm.always_trains and norm.operation.trainable:
        return None, ALWAYS_TRAINS
    tensor, is_padded = norm.inputs[0], False
    while True:
        call = producers.get(id(tensor))
        if call is None:
            return None, "it follows the model's input"
        if len(consumers[id(tensor)]) > 1:
            return None, f"the output of {call.name!r} is also used elsewhere"
        if type(call.operation) in SCALE_KERNEL:
            break
        if isinstance(call.operation, PADDINGS):
            is_padded = True
        elif not _is_transparent(call.operation):
            return None, f"{call.name!r} ({type(call.operation).__name__}) precedes it"
        tensor = call.inputs[0]
    if is_padded and np.any(affine_of(norm.operation).shift != 0):
        return None, "it would shift the zeros that are padded before it"
    reason = _why_layer_cannot_take(call, norm, times, taken)
    return (None, reason) if reason else (call, "")


def _why_layer_cannot_take(call: Call, norm: Call, times: dict, taken: set[Call]) -> str:
    layer = call.operation
    if call in taken:
        return f"another batch normalization is folded into {call.name!r}"
    if times[id(layer)] > 1:
        return f"{call.name!r} is shared by several calls"
    if layer.activation not in (None, keras.activations.linear):
        return f"{call.name!r} has its own activation"
    if fixed := why_weights_are_fixed(layer):
        return fixed
    if channel_axis(layer, len(call.outputs[0].shape)) != norm.operation.axis % len(norm.inputs[0].shape):
        return f"it does not normalize the channel axis of {call.name!r}"
    return ""


def _is_transparent(layer: Any) -> bool:
    if isinstance(layer, layers.Activation):
        return layer.activation is keras.activations.linear
    if isinstance(layer, (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D)):
        return layer.padding == "valid"  # for "same", backends divide by different counts at the border
    if isinstance(layer, layers.UpSampling2D):
        return layer.interpolation in ("nearest", "bilinear")
    return isinstance(layer, TRANSPARENT)


def channel_axis(layer: Any, rank: int) -> int:
    """Returns the axis of a layer's output channels, from its data format."""
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return 1 if first else rank - 1


def _with_affine(call: Call, affine: Affine) -> Call:
    """Returns the same call of a layer that also applies the batch normalization."""
    layer = call.operation
    *others, kernel = kernels_of(layer)
    bias = affine.shift + (float64(layer.bias) * affine.factor if layer.use_bias else 0.0)
    weights = [*others, SCALE_KERNEL[type(layer)](kernel, affine.factor), bias]
    folded = new_layer(remade(layer, use_bias=True), call.inputs[0].shape, weights)
    return dataclasses.replace(call, operation=folded, is_new=True)


def kernels_of(layer: Any) -> list[np.ndarray]:
    """Returns the kernels of a layer in `SCALE_KERNEL`, float64; the last one produces the output channels."""
    is_separable = isinstance(layer, (layers.SeparableConv1D, layers.SeparableConv2D))
    names = ("depthwise_kernel", "pointwise_kernel") if is_separable else ("kernel",)
    return [float64(getattr(layer, name)) for name in names]


def float64(variable: Any) -> np.ndarray:
    """Returns the values of a variable as float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable)).astype("float64")
