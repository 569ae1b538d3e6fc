"""The gates of a model, from the same forward pass as its outputs."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.excitation import Excitation, find_excitations
from se_keras.surgery.foreign import WHY_UNREAD, Opened, opened
from se_keras.surgery.graph import new_copier, read_graph
from se_keras.surgery.hoist import new_call
from se_keras.surgery.layer_facts import layers_inside, repeated_model, shown


class _WithGates(SqueezeExcite):
    """An SE block that returns its gates, (batch, channels), along with its output."""

    def call(self, inputs: Any, mask: Any = None) -> Any:
        gates = self.gates(inputs, mask)
        return inputs * gates, ops.reshape(gates, (-1, self.reduce_kernel.shape[0]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        return tuple(input_shape), (input_shape[0], self.reduce_kernel.shape[0])


@dataclasses.dataclass(frozen=True)
class Probe:
    """A graph in which the gates of every SE block are tensors that can become outputs.

    Args:
        graph: The graph; it computes what the original does.
        excitations: The SE blocks in the original graph, in the order of the network.
        names: Their names. The name of a block that is called again ends in the number of the call.
        gates: The tensor of each block's gates, (batch, channels), in `graph`.
        holders: For each block, the foreign layer that it is inside, or None.
    """

    graph: Graph
    excitations: tuple[Excitation, ...]
    names: tuple[str, ...]
    gates: tuple[Any, ...]
    holders: tuple[Any, ...]


def probe_gates(graph: Graph) -> Probe:
    """Exposes the gates of every SE block of a graph, without running any block twice.

    Args:
        graph: The graph.

    Returns:
        The probe.

    Raises:
        ValueError: The graph has no SE block, or only some inside other layers (which are named).

    Warns:
        UserWarning: Some blocks are inside other layers, where they cannot be read.
    """
    found = opened(graph)
    excitations = tuple(_in_holder(one, found) for one in find_excitations(found.graph) if one.is_readable)
    hidden = _hidden_blocks(graph, found)
    if not excitations and hidden:
        raise ValueError(f"No gates of {graph.name!r} can be read: {hidden}")
    if not excitations:
        raise ValueError(
            f"Gates are read from SqueezeExcite layers, and from other layers and operations that squeeze a map, "
            f"project, and multiply the map; the model {graph.name!r} has none. Pass a network with SE, such as one "
            "that `insert_squeeze_excite` was applied to."
        )
    if hidden:
        warnings.warn(f"Not all gates of {graph.name!r} are read: {hidden}", UserWarning, stacklevel=3)
    replacements: dict[Call, list[Call]] = {}
    gates: list[Any] = []
    for one in excitations:
        replacements[one.call], gate = _with_gates(one) if one.block is not None else _with_flat_gates(one)
        gates.append(gate)
    rewritten = found.graph.rewritten(replacements, {})
    holders = tuple(found.holders.get(id(one.call.outputs[0])) for one in excitations)
    return Probe(rewritten, excitations, _numbered(excitations), tuple(gates), holders)


def _in_holder(one: Excitation, found: Opened) -> Excitation:
    """Returns a block, named after the foreign layer that it is inside, if any."""
    layer = found.holders.get(id(one.call.outputs[0]))
    if layer is None:
        return one
    is_single = found.counts[id(layer)] == 1
    return dataclasses.replace(one, name=layer.name if is_single else f"{layer.name}/{one.name}")


def _with_gates(one: Excitation) -> tuple[list[Call], Any]:
    """Returns the call of an SE layer that also returns its gates, and their tensor."""
    block: Any = one.block
    layer = new_copier().layer(block, kind=_WithGates)
    gate = keras.KerasTensor((one.map.shape[0], block.reduce_kernel.shape[0]), dtype=block.compute_dtype)
    return [dataclasses.replace(one.call, operation=layer, outputs=(*one.call.outputs, gate), is_new=True)], gate


def _with_flat_gates(one: Excitation) -> tuple[list[Call], Any]:
    """Returns the product of a block of other layers, with a call that returns its gates in two axes."""
    flatten = keras.layers.Reshape((one.channels,), name=f"{one.call.name}_gates", dtype=one.gate.dtype)
    flat = new_call(flatten, one.gate)
    return [one.call, flat], flat.outputs[0]


def _numbered(excitations: Sequence[Excitation]) -> tuple[str, ...]:
    """Returns the names of blocks; from a block's second call on, its name ends in the number of the call."""
    names: list[str] = []
    for one in excitations:
        earlier = sum(name.split(":")[0] == one.name for name in names)
        names.append(f"{one.name}:{earlier + 1}" if earlier else one.name)
    return tuple(names)


def _hidden_blocks(graph: Graph, found: Opened) -> str:
    """Returns a message with the SE blocks inside other layers and the remedy, or "" if there are none."""
    holders = {id(call.operation): call.operation for call in graph.calls if type(call.operation) is not SqueezeExcite}
    counts = {
        layer.name: (sum(isinstance(part, SqueezeExcite) for part in (layer, *layers_inside(layer))) + theirs, layer)
        for layer in holders.values()
        for theirs in [_blocks_of_layers(repeated_model(layer))]
    }
    inside = [f"{count} in {shown(layer)}" for count, layer in counts.values() if count]
    repeated = [layer for count, layer in counts.values() if count and repeated_model(layer) is not None]
    hint = f" Pass {_way_into(repeated[0])} and its own inputs." if repeated else ""
    messages = [f"SE blocks inside other layers are not read ({', '.join(inside)}).{hint}"] if inside else []
    if found.unread:
        names = ", ".join(map(shown, found.unread))
        messages.append(f"{names}: {WHY_UNREAD}.")
    return " ".join(messages)


def _blocks_of_layers(model: Any) -> int:
    """Returns the number of SE blocks of other layers in a model; 0 without a model."""
    found = () if model is None else find_excitations(opened(read_graph(model)).graph)
    return sum(one.block is None for one in found)


def _way_into(layer: Any) -> str:
    """Returns the expression for the model in a `TimeDistributed` layer."""
    way, inner = f"model.get_layer({layer.name!r})", layer
    while type(inner) is keras.layers.TimeDistributed:
        way, inner = f"{way}.layer", inner.layer
    return way
