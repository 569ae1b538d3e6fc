"""Constant gates in place of SE blocks, folded into the preceding layers where that is exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.fold import SCALE_KERNEL, float64, scaled
from se_keras.surgery.graph import new_layer, remade
from se_keras.surgery.hoist import new_call
from se_keras.surgery.layer_types import BATCH_NORMS, LINEAR, POSITIVELY_HOMOGENEOUS, channel_axis, is_linear


def constant_gates(graph: Graph, gates: Mapping[str, np.ndarray]) -> Graph:
    """Replaces SE blocks on images with multiplications by constants.

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
    gate = np.asarray(gate, "float64")
    folding = _Folding(graph, call.operation)
    reason = folding.push(call.inputs[0], gate)
    if not reason:
        aliases = {id(call.outputs[0]): call.inputs[0]}
        targets = ", ".join(target.name for target in folding.replacements)
        return graph.rewritten({**folding.replacements, call: []}, aliases), "folded", targets
    if len(call.inputs[0].shape) != 4:
        return graph, "kept", reason
    return graph.rewritten({call: [_as_depthwise(call, gate)]}, {}), "scaled", reason


class _Folding:
    """An upstream search for the layers that can take a factor per channel."""

    def __init__(self, graph: Graph, block: SqueezeExcite) -> None:
        self.graph, self.block = graph, block
        self.replacements: dict[Call, Sequence[Call]] = {}

    def push(self, tensor: Any, gate: np.ndarray) -> str:
        """Moves a factor upstream of a tensor; returns why it cannot, or ""."""
        call = self.graph.sole_producer(tensor)
        if isinstance(call, str):
            return call
        layer, rank = call.operation, len(tensor.shape)
        axis = channel_axis(self.block, rank)
        reason = self.graph.why_fixed(call) or _why_not_plain(call)
        if reason:
            return reason
        if type(layer) in BATCH_NORMS:
            return self._replace(call, layer.axis % rank == axis, _scaled_norm, gate)
        if type(layer) in SCALE_KERNEL:
            if not _passes(layer.activation, gate):
                return f"the activation of {call.name!r} is in between"
            return self._replace(call, channel_axis(layer, rank) == axis, scaled, gate)
        if type(layer) is layers.Concatenate and layer.axis % rank == axis:
            ends = np.cumsum([x.shape[axis] for x in call.inputs])[:-1]
            reasons = (self.push(x, part) for x, part in zip(call.inputs, np.split(gate, ends), strict=True))
            return next((reason for reason in reasons if reason), "")
        if _passes_through(layer, gate):
            return self.push(call.inputs[0], gate)
        return f"{call.name!r} ({type(layer).__name__}) precedes it"

    def _replace(
        self, call: Call, is_along_channels: bool, scale: Callable[[Call, np.ndarray], Call], gate: np.ndarray
    ) -> str:
        if not is_along_channels:
            return f"{call.name!r} works along another axis"
        self.replacements[call] = [scale(call, gate)]
        return ""


def _why_not_plain(call: Call) -> str:
    if call.kwargs.get("mask") is not None or len(call.outputs) != 1:
        return f"{call.name!r} is called with a mask or has several outputs"
    return f"{call.name!r} was called with training=True" if call.always_trains else ""


def _passes(activation: Any, gate: np.ndarray) -> bool:
    """Returns whether f(x * gate) equals f(x) * gate."""
    is_homogeneous = activation in (keras.activations.relu, keras.activations.leaky_relu)
    return is_linear(activation) or (is_homogeneous and bool(np.all(gate >= 0)))


def _passes_through(layer: Any, gate: np.ndarray) -> bool:
    """Returns whether a layer applied to x * gate returns its output for x, times the gate."""
    if isinstance(layer, layers.Activation):
        return _passes(layer.activation, gate)
    is_relu = type(layer) is layers.ReLU and layer.max_value is None and not layer.threshold
    is_homogeneous = is_relu or type(layer) in POSITIVELY_HOMOGENEOUS
    return type(layer) in LINEAR or (is_homogeneous and bool(np.all(gate >= 0)))


def _scaled_norm(call: Call, gate: np.ndarray) -> Call:
    norm = call.operation
    scale = gate * float64(norm.gamma) if norm.scale else gate
    shift = [gate * float64(norm.beta)] if norm.center else []
    weights = [scale, *shift, float64(norm.moving_mean), float64(norm.moving_variance)]
    return call.of(new_layer(remade(norm, scale=True), call.inputs[0].shape, weights))


def _as_depthwise(call: Call, gate: np.ndarray) -> Call:
    block = call.operation
    scale = layers.DepthwiseConv2D(
        1, use_bias=False, data_format=block.data_format, name=block.name, dtype=block.dtype_policy
    )
    return dataclasses.replace(new_call(scale, call.inputs[0], [gate.reshape(1, 1, -1, 1)]), outputs=call.outputs)
