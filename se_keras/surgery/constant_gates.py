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
from se_keras.surgery.excitation import Excitation, find_excitations
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
    blocks = [one for one in find_excitations(graph) if type(one.block) is SqueezeExcite and one.name in gates]
    return graph.rewritten({one.call: [_as_depthwise(one, np.asarray(gates[one.name]))] for one in blocks}, {})


def with_constant_gate(graph: Graph, excitation: Excitation, gate: np.ndarray) -> tuple[Graph, str, str]:
    """Replaces one SE block with constant gates, folded into the preceding layers where that is exact.

    Args:
        graph: The graph.
        excitation: The block in the graph, or in the graph before other blocks were replaced.
        gate: The gates, shape (channels,), of any sign.

    Returns:
        The new graph, and the action and the detail of a `GateChange`.
    """
    gate = np.asarray(gate, "float64")
    cleared, one = _without_gate_path(graph, excitation)
    folding = _Folding(cleared, is_first=one.axis == 1)
    reason = folding.push(one.map, gate)
    if not reason:
        aliases = {id(one.call.outputs[0]): one.map}
        targets = ", ".join(target.name for target in folding.replacements)
        return cleared.rewritten({**folding.replacements, one.call: []}, aliases), "folded", targets
    if len(one.map.shape) != 4:
        return graph, "kept", reason
    return cleared.rewritten({one.call: [_as_depthwise(one, gate)]}, {}), "scaled", reason


def _without_gate_path(graph: Graph, excitation: Excitation) -> tuple[Graph, Excitation]:
    """Returns the graph without the calls that only compute the gates of a block, and the block in it."""
    # Other replacements keep the outputs but not the calls.
    output = excitation.call.outputs[0]
    one = next(one for one in find_excitations(graph) if one.call.outputs[0] is output)
    unused = {one.call}
    for call in reversed(one.path):
        if all(graph.is_only_taken_by(x, unused) for x in call.outputs):
            unused.add(call)
    cleared = graph.rewritten({call: [] for call in unused - {one.call}}, {})
    (product,) = (call for call in cleared.calls if call.outputs[0] is output)
    return cleared, dataclasses.replace(one, call=product, name=excitation.name)


class _Folding:
    """An upstream search for the layers that can take a factor per channel."""

    def __init__(self, graph: Graph, *, is_first: bool) -> None:
        self.graph, self.is_first = graph, is_first
        self.replacements: dict[Call, Sequence[Call]] = {}

    def push(self, tensor: Any, gate: np.ndarray) -> str:
        """Moves a factor upstream of a tensor; returns why it cannot, or ""."""
        call = self.graph.sole_producer(tensor)
        if isinstance(call, str):
            return call
        layer, rank = call.operation, len(tensor.shape)
        axis = 1 if self.is_first else rank - 1
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


def _as_depthwise(one: Excitation, gate: np.ndarray) -> Call:
    data_format = "channels_first" if one.axis == 1 else "channels_last"
    dtype = getattr(one.call.operation, "dtype_policy", one.map.dtype)
    scale = layers.DepthwiseConv2D(1, use_bias=False, data_format=data_format, name=one.name, dtype=dtype)
    return dataclasses.replace(new_call(scale, one.map, [gate.reshape(1, 1, -1, 1)]), outputs=one.call.outputs)
