"""Constant gates in place of SE blocks, folded into the preceding layers where that is exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from se_keras.layers import SqueezeExcite
from se_keras.surgery.fold import BATCH_NORMS, PADDINGS, SCALE_KERNEL, TRANSPARENT, channel_axis, float64, kernels_of
from se_keras.surgery.graph import Call, Graph, new_layer, remade
from se_keras.surgery.hoist import new_call
from se_keras.surgery.layer_facts import why_weights_are_fixed

# These pass a non-negative factor per channel through unchanged.
POSITIVELY_HOMOGENEOUS = (
    layers.LeakyReLU,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.PReLU,
)
# These pass a factor of any sign through unchanged.
LINEAR = (
    *TRANSPARENT,
    *PADDINGS,
    layers.UpSampling2D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)


def constant_gates(graph: Graph, gates: Mapping[str, np.ndarray]) -> Graph:
    """Replaces SE blocks on images with a product with constants.

    Args:
        graph: The graph.
        gates: Maps the name of an SE block to its gates, shape (channels,).

    Returns:
        The new graph. Constant gates are a 1x1 depthwise convolution with the block's name.
    """
    replacements = {}
    for call in graph.calls:
        block = call.operation
        if type(block) is SqueezeExcite and block.name in gates:
            replacements[call] = [_as_depthwise(call, np.asarray(gates[block.name]))]
    return graph.rewritten(replacements, {})


def with_constant_gate(graph: Graph, call: Call, gate: np.ndarray) -> tuple[Graph, str, str]:
    """Replaces one SE block with constant gates, folded into the preceding layers where that is exact.

    Args:
        graph: The graph.
        call: The call of the block in the graph, or in the graph before other blocks were replaced.
        gate: The gates, shape (channels,), of any sign.

    Returns:
        The new graph, and the action and the detail of a `GateChange`.
    """
    # Other replacements keep the outputs but not the calls.
    call = next(c for c in graph.calls if any(x is call.outputs[0] for x in c.outputs))
    block, gate = call.operation, np.asarray(gate, "float64")
    folding = _Folding(graph, block.data_format)
    reason = folding.push(call.inputs[0], gate)
    if not reason:
        aliases = {id(call.outputs[0]): call.inputs[0]}
        return graph.rewritten({**folding.replacements, call: []}, aliases), "folded", ", ".join(folding.targets)
    if len(call.inputs[0].shape) != 4:
        return graph, "kept", reason
    return graph.rewritten({call: [_as_depthwise(call, gate)]}, {}), "scaled", reason


class _Folding:
    """An upstream search for the layers that can take a factor per channel."""

    def __init__(self, graph: Graph, data_format: str) -> None:
        self.producers, self.consumers, self.times = graph.producers(), graph.consumers(), graph.times_called()
        self.is_first = data_format == "channels_first"
        self.replacements: dict[Call, Sequence[Call]] = {}
        self.targets: list[str] = []

    def push(self, tensor: Any, gate: np.ndarray) -> str:
        """Moves a factor upstream of a tensor; returns why it cannot, or ""."""
        call = self.producers.get(id(tensor))
        if call is None:
            return "it follows the model's input"
        layer = call.operation
        if len(self.consumers[id(tensor)]) > 1:
            return f"the output of {call.name!r} is also used elsewhere"
        if self.times[id(layer)] > 1:
            return f"{call.name!r} is shared by several calls"
        if call.kwargs.get("mask") is not None or len(call.outputs) != 1:
            return f"{call.name!r} is called with a mask or has several outputs"
        if call.always_trains:
            return f"{call.name!r} was called with training=True"
        axis = 1 if self.is_first else len(tensor.shape) - 1
        if type(layer) in BATCH_NORMS:
            is_along_channels = layer.axis % len(tensor.shape) == axis
            return self._replace(call, _scaled_norm, gate) if is_along_channels else _other_axis(call)
        if type(layer) in SCALE_KERNEL:
            if not _passes(layer.activation, gate):
                return f"the activation of {call.name!r} is in between"
            if fixed := why_weights_are_fixed(layer):
                return fixed
            is_along_channels = channel_axis(layer, len(tensor.shape)) == axis
            return self._replace(call, _scaled_layer, gate) if is_along_channels else _other_axis(call)
        if type(layer) is layers.Concatenate and layer.axis % len(tensor.shape) == axis:
            ends = np.cumsum([x.shape[axis] for x in call.inputs])[:-1]
            reasons = (self.push(x, part) for x, part in zip(call.inputs, np.split(gate, ends), strict=True))
            return next((reason for reason in reasons if reason), "")
        if _hands_on(layer, gate):
            return self.push(call.inputs[0], gate)
        return f"{call.name!r} ({type(layer).__name__}) precedes it"

    def _replace(self, call: Call, scaled: Callable[[Any, np.ndarray], tuple[Any, list]], gate: np.ndarray) -> str:
        scaled_layer, weights = scaled(call.operation, gate)
        layer = new_layer(scaled_layer, call.inputs[0].shape, weights)
        self.replacements[call] = [dataclasses.replace(call, operation=layer, is_new=True)]
        self.targets.append(call.name)
        return ""


def _other_axis(call: Call) -> str:
    return f"{call.name!r} works along another axis"


def _passes(activation: Any, gate: np.ndarray) -> bool:
    """Returns whether f(x * gate) equals f(x) * gate."""
    if activation in (None, keras.activations.linear):
        return True
    return activation in (keras.activations.relu, keras.activations.leaky_relu) and bool(np.all(gate >= 0))


def _hands_on(layer: Any, gate: np.ndarray) -> bool:
    if isinstance(layer, layers.Activation):
        return _passes(layer.activation, gate)
    if type(layer) is layers.ReLU:
        return layer.max_value is None and not layer.threshold and bool(np.all(gate >= 0))
    return type(layer) in LINEAR or (type(layer) in POSITIVELY_HOMOGENEOUS and bool(np.all(gate >= 0)))


def _scaled_norm(norm: Any, gate: np.ndarray) -> tuple[Any, list[np.ndarray]]:
    scale = gate * float64(norm.gamma) if norm.scale else gate
    shift = [gate * float64(norm.beta)] if norm.center else []
    weights = [scale, *shift, float64(norm.moving_mean), float64(norm.moving_variance)]
    return remade(norm, scale=True), weights


def _scaled_layer(layer: Any, gate: np.ndarray) -> tuple[Any, list[np.ndarray]]:
    *others, kernel = kernels_of(layer)
    bias = [gate * float64(layer.bias)] if layer.use_bias else []
    return remade(layer), [*others, SCALE_KERNEL[type(layer)](kernel, gate), *bias]


def _as_depthwise(call: Call, gate: np.ndarray) -> Call:
    block = call.operation
    scale = layers.DepthwiseConv2D(
        1, use_bias=False, data_format=block.data_format, name=block.name, dtype=block.dtype_policy
    )
    return dataclasses.replace(new_call(scale, call.inputs[0], [gate.reshape(1, 1, -1, 1)]), outputs=call.outputs)
