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
from se_keras.surgery.layer_types import (
    BATCH_NORMS,
    DEPTHWISE_OF_RANK,
    LINEAR,
    POSITIVELY_HOMOGENEOUS,
    channel_axis,
    is_linear,
)


def constant_gates(graph: Graph, gates: Mapping[str, np.ndarray]) -> Graph:
    """Replaces SE blocks with multiplications by constants.

    Args:
        graph: The graph.
        gates: Maps the name of an SE block to its gates, shape (channels,).

    Returns:
        The new graph. Constant gates are a layer with the block's name: a 1x1 depthwise convolution, or a rescaling
        where there is none for maps of this rank, or where the map may come with a mask, which it must pass on.
    """
    blocks = [one for one in find_excitations(graph) if type(one.block) is SqueezeExcite and one.name in gates]
    products = {one.call: _product(graph, one, np.asarray(gates[one.name])) for one in blocks}
    return graph.rewritten({call: [product] for call, product in products.items() if product is not None}, {})


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
    reason = _why_mask_changes(cleared, one) or folding.push(one.map, gate)
    if not reason:
        aliases = {id(one.call.outputs[0]): one.map}
        targets = ", ".join(target.name for target in folding.replacements)
        return cleared.rewritten({**folding.replacements, one.call: []}, aliases), "folded", targets
    product = _product(cleared, one, gate)
    if product is None:
        return graph, "kept", reason
    return cleared.rewritten({one.call: [product]}, {}), "scaled", reason


def _why_mask_changes(graph: Graph, one: Excitation) -> str:
    """Returns the reason why the map of a block comes with another mask than its product, or ""."""
    if one.call.kwargs.get("mask") is not None:
        return f"{one.call.name!r} is called with a mask, which it passes on"
    return f"{one.call.name!r} takes the factors at masked positions as 1" if _replaces_masked(graph, one) else ""


def _replaces_masked(graph: Graph, one: Excitation) -> bool:
    return one.block is None and graph.is_masked(one.map)  # as `keras.layers.Multiply` does


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


def _product(graph: Graph, one: Excitation, gate: np.ndarray) -> Call | None:
    """Returns a multiplication of the map of a block by constant gates, or None if it would change the mask."""
    rank = len(one.map.shape)
    options = {"name": one.name, "dtype": getattr(one.call.operation, "dtype_policy", one.map.dtype)}
    if _replaces_masked(graph, one) or one.call.kwargs.get("mask") is not None:
        return None
    if rank in DEPTHWISE_OF_RANK and not graph.takes_mask(one.call):
        data_format = "channels_first" if one.axis == 1 else "channels_last"
        scale = DEPTHWISE_OF_RANK[rank](1, use_bias=False, data_format=data_format, **options)
        call = new_call(scale, one.map, [gate.reshape(*(1,) * (rank - 2), -1, 1)])
    else:  # this passes the mask on
        shape = [-1 if axis == one.axis else 1 for axis in range(rank)]
        call = new_call(layers.Rescaling(gate.reshape(shape), **options), one.map)
    return dataclasses.replace(call, outputs=one.call.outputs)
