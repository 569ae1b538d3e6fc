"""Batch normalization folded into the preceding convolution or dense layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.change import Change, find_targets
from se_keras.surgery.graph import new_layer, remade
from se_keras.surgery.layer_types import (
    AVERAGE_POOLINGS,
    BATCH_NORMS,
    CONVOLUTIONS,
    DEPTHWISE,
    PADDINGS,
    SEPARABLE,
    TRANSPARENT,
    TRANSPOSED,
    channel_axis,
    is_linear,
)


def _last_axis(kernel: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return kernel * factor


def _transposed(kernel: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return kernel * factor[:, None]


def _depthwise(kernel: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return kernel * factor.reshape(kernel.shape[-2:])


# How a factor per output channel is multiplied into a layer's last kernel.
SCALE_KERNEL: dict[type, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    **dict.fromkeys((layers.Dense, *CONVOLUTIONS), _last_axis),
    **dict.fromkeys(DEPTHWISE, _depthwise),
    **dict.fromkeys(TRANSPOSED, _transposed),
}
ALWAYS_TRAINS = "it was called with training=True, which also holds at inference"


def fold_batch_norms(graph: Graph) -> tuple[Graph, list[Change]]:
    """Folds every batch normalization for which that is exact.

    Args:
        graph: The graph.

    Returns:
        The new graph, and the change of each batch normalization.
    """
    targets, changes = find_targets(graph, BATCH_NORMS, _target, "folded")
    replacements: dict[Call, Sequence[Call]] = {norm: [] for norm in targets}
    for norm, target in targets.items():
        replacements[target] = [scaled(target, *affine_of(norm.operation))]
    aliases = {id(norm.outputs[0]): norm.inputs[0] for norm in targets}
    return graph.rewritten(replacements, aliases), changes


def affine_of(norm: layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Returns a built batch normalization at inference as x * factor + shift, each (channels,), float64."""
    mean, variance = float64(norm.moving_mean), float64(norm.moving_variance)
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * float64(norm.gamma)
    shift = -mean * factor
    if norm.center:
        shift = shift + float64(norm.beta)
    return factor, shift


def _target(graph: Graph, norm: Call) -> Call | str:
    """Returns the layer that a batch normalization can be folded into, or the reason why there is none."""
    if fixed := graph.why_fixed(norm):
        return fixed
    if norm.always_trains and norm.operation.trainable:
        return ALWAYS_TRAINS
    tensor, is_padded = norm.inputs[0], False
    while True:
        call = graph.sole_producer(tensor)
        if isinstance(call, str) or type(call.operation) in SCALE_KERNEL:
            break
        if isinstance(call.operation, PADDINGS):
            is_padded = True
        elif not _is_transparent(call.operation):
            return f"{call.name!r} ({type(call.operation).__name__}) precedes it"
        tensor = call.inputs[0]
    if isinstance(call, str):
        return call
    if is_padded and np.any(affine_of(norm.operation)[1] != 0):
        return "it would shift the zeros that are padded before it"
    return graph.why_fixed(call) or _mismatch(norm, call) or call


def _mismatch(norm: Call, call: Call) -> str:
    """Returns the reason why the layer of a call cannot apply a batch normalization, or ""."""
    if not is_linear(call.operation.activation):
        return f"{call.name!r} has its own activation"
    if channel_axis(call.operation, len(call.outputs[0].shape)) != norm.operation.axis % len(norm.inputs[0].shape):
        return f"it does not normalize the channel axis of {call.name!r}"
    return ""


def _is_transparent(layer: Any) -> bool:
    if isinstance(layer, layers.Activation):
        return is_linear(layer.activation)
    if isinstance(layer, AVERAGE_POOLINGS):
        return layer.padding == "valid"  # for "same", backends divide by different counts at the border
    if isinstance(layer, layers.UpSampling2D):
        return layer.interpolation in ("nearest", "bilinear")
    return isinstance(layer, TRANSPARENT)


def scaled(call: Call, factor: np.ndarray, shift: np.ndarray | None = None) -> Call:
    """Returns the same call with a layer whose output channels are multiplied by a factor, and shifted.

    Args:
        call: A call of a layer in `SCALE_KERNEL`.
        factor: The factor, (channels,), float64.
        shift: The shift, (channels,), float64. None adds nothing.

    Returns:
        The call of a new layer.
    """
    layer = call.operation
    names = ("depthwise_kernel", "pointwise_kernel") if isinstance(layer, SEPARABLE) else ("kernel",)
    *others, kernel = (float64(getattr(layer, name)) for name in names)
    biases = [float64(layer.bias) * factor] if layer.use_bias else []
    if shift is not None:
        biases = [sum(biases, start=shift)]
    weights = [*others, SCALE_KERNEL[type(layer)](kernel, factor), *biases]
    return call.of(new_layer(remade(layer, use_bias=bool(biases)), call.inputs[0].shape, weights))


def float64(variable: Any) -> np.ndarray:
    """Returns the values of a variable as float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable)).astype("float64")
