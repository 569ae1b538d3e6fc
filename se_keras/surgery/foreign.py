"""SE blocks inside layer classes of other packages and of users, which are found by calling them symbolically."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any

import keras

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.excitation import find_excitations
from se_keras.surgery.graph import new_copier, read_graph
from se_keras.surgery.layer_facts import is_functional, layers_inside
from se_keras.surgery.layer_types import is_learned

WHY_UNREAD = "probably SE, but not a layer whose `call` takes symbolic Keras tensors, so its gates cannot be found"
# How others call their layer classes: SEBlock, SELayer, SqueezeAndExcite2D, ChannelAttention, ECA, CBAM.
_NAMES = re.compile(r"squeeze.*excit|excitation|channel_?attention|cbam|(^|_)(se|eca)(_|$)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A graph in which foreign layers that hold SE blocks are replaced by copies of what they compute.

    Args:
        graph: The graph.
        holders: Maps the id of each tensor computed inside such a layer to the layer.
        counts: Maps the id of such a layer to the number of its SE blocks.
        unread: The layers that cannot be looked into, but look like SE blocks by their names or parts.
    """

    graph: Graph
    holders: Mapping[int, Any]
    counts: Mapping[int, int]
    unread: tuple[Any, ...]


def opened(graph: Graph) -> Opened:
    """Looks into the foreign layers in a graph that hold SE blocks.

    Args:
        graph: The graph, which is not changed.

    Returns:
        A graph with the same outputs at inference. Layers without SE blocks stay as they are.
    """
    looked = _looked_into(graph)
    unread = [call.operation for call, inner in looked.items() if inner is None and _looks_like_se(call)]
    unread += [layer for inner in looked.values() if inner is not None for layer in inner.unread]
    read = {call: inner.graph for call, inner in looked.items() if inner and find_excitations(inner.graph)}
    aliases = {key: x for call, inner in read.items() for key, x in _aliases(call, inner).items()}
    return Opened(
        graph.rewritten({call: inner.calls for call, inner in read.items()}, aliases) if read else graph,
        {id(x): call.operation for call, inner in read.items() for one in inner.calls for x in one.outputs},
        {id(call.operation): len(find_excitations(inner)) for call, inner in read.items()},
        tuple({id(layer): layer for layer in unread}.values()),
    )


def _looked_into(graph: Graph) -> dict[Call, Opened | None]:
    """Traces the layers that may hold SE blocks, but only one of each kind that holds none, as `_traced` does."""
    found: dict[Call, Opened | None] = {}
    without_blocks: set[Any] = set()
    for call in graph.calls:
        kind = (type(call.operation), *map(type, layers_inside(call.operation)))
        if kind in without_blocks or not _may_hold_blocks(call.operation):
            continue
        found[call] = inner = _traced(call)
        if inner is not None and not inner.unread and not find_excitations(inner.graph):
            without_blocks.add(kind)
    return found


def _aliases(call: Call, inner: Graph) -> dict[int, Any]:
    """Returns the replacements for the inputs of a layer's graph, and for the outputs of its call."""
    given = {id(x): x for x in call.inputs}.values()
    inputs = zip((id(x) for x in keras.tree.flatten(inner.inputs)), given, strict=True)
    outputs = zip((id(x) for x in call.outputs), keras.tree.flatten(inner.outputs), strict=True)
    return dict([*inputs, *outputs])


def _others_in(layer: Any) -> list[Any]:
    """Returns a layer and those inside it whose classes are neither Keras' nor ours."""
    if not isinstance(layer, keras.layers.Layer) or is_functional(layer):
        return []
    return [one for one in (layer, *layers_inside(layer)) if is_of_others(one)]


def is_of_others(layer: Any) -> bool:
    """Returns whether the class of a layer is neither Keras' nor of this package."""
    return type(layer).__module__.partition(".")[0] not in ("keras", "se_keras")


def _may_hold_blocks(layer: Any) -> bool:
    """Returns whether a layer has weights and is, or holds, a foreign layer; layers with our blocks are known."""
    holds_ours = any(isinstance(part, SqueezeExcite) for part in (layer, *layers_inside(layer)))
    return bool(_others_in(layer)) and bool(layer.weights) and not holds_ours


def _traced(call: Call) -> Opened | None:
    """Returns what a foreign layer computes at inference, by a copy of it; None if it takes no symbolic tensors."""
    if not is_of_others(call.operation):
        return None
    fresh = {id(x): keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in call.inputs}
    try:
        layer = new_copier().layer(call.operation)
        args, kwargs = keras.tree.map_structure(lambda x: fresh.get(id(x), x), (call.args, dict(call.kwargs)))
        if "training" in inspect.signature(layer.call).parameters:
            kwargs["training"] = False
        outputs = keras.tree.flatten(layer.call(*args, **kwargs))
        inner = opened(read_graph(keras.Model(list(fresh.values()), outputs)))
    except Exception:  # foreign code may do anything with a tensor
        return None
    calls = tuple(dataclasses.replace(one, is_new=True, node=None, path=call.path) for one in inner.graph.calls)
    return dataclasses.replace(inner, graph=dataclasses.replace(inner.graph, calls=calls))


def _looks_like_se(call: Call) -> bool:
    """Returns whether a layer, or one inside it, is SE by the name of its class, or by its parts and shapes."""
    if any(_NAMES.search(_words(type(one).__name__)) for one in _others_in(call.operation)):
        return True
    shapes = {tuple(x.shape) for x in (*call.inputs, *call.outputs)}
    parts = list(layers_inside(call.operation))
    has_squeeze = any(type(part).__name__.startswith("Global") for part in parts)
    return len(shapes) == 1 and has_squeeze and any(map(is_learned, parts))


def _words(name: str) -> str:
    """Returns the name of a class with its words separated: "SE_Block" for SEBlock."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
