"""SE blocks inside layer classes of other packages and of users, which are looked into by calling them symbolically."""

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

WHY_UNREAD = "probably SE, but its `call` does not take symbolic Keras tensors, so its gates cannot be found"
# How others call their layer classes: SEBlock, SELayer, SqueezeAndExcite2D, ChannelAttention, ECA, CBAM.
_NAMES = re.compile(r"squeeze.*excit|excitation|channel_?attention|cbam|(^|_)(se|eca)(_|$)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A graph in which layers of others that hold SE blocks are replaced by copies of what they compute.

    Args:
        graph: The graph.
        holders: Maps the id of each tensor computed inside such a layer to the layer.
        counts: Maps the id of such a layer to the number of its SE blocks.
        unread: The layers that cannot be looked into, and are SE blocks by their names or parts.
    """

    graph: Graph
    holders: Mapping[int, Any]
    counts: Mapping[int, int]
    unread: tuple[Any, ...]


def opened(graph: Graph) -> Opened:
    """Looks into the layers of others in a graph that hold SE blocks.

    Args:
        graph: The graph, which is not changed.

    Returns:
        A graph with the same answers at inference. Layers without SE blocks stay as they are.
    """
    looked = {call: _traced(call) for call in graph.calls if _is_of_others(call.operation)}
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


def _aliases(call: Call, inner: Graph) -> dict[int, Any]:
    """Returns what takes the place of the inputs of a layer's graph, and of the outputs of its call."""
    given = {id(x): x for x in call.inputs}.values()
    inputs = zip((id(x) for x in keras.tree.flatten(inner.inputs)), given, strict=True)
    outputs = zip((id(x) for x in call.outputs), keras.tree.flatten(inner.outputs), strict=True)
    return dict([*inputs, *outputs])


def _is_of_others(layer: Any) -> bool:
    """Returns whether a layer's class is neither Keras' nor ours, and has weights that gates may come from."""
    if not isinstance(layer, keras.layers.Layer) or is_functional(layer) or not layer.weights:
        return False
    is_known = type(layer).__module__.partition(".")[0] in ("keras", "se_keras")
    return not is_known and not any(isinstance(part, SqueezeExcite) for part in (layer, *layers_inside(layer)))


def _traced(call: Call) -> Opened | None:
    """Returns what a layer computes at inference, as the graph of a copy; None if it does not take symbolic tensors."""
    fresh = {id(x): keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in call.inputs}
    try:
        layer = new_copier().layer(call.operation)
        args, kwargs = keras.tree.map_structure(lambda x: fresh.get(id(x), x), (call.args, dict(call.kwargs)))
        if "training" in inspect.signature(layer.call).parameters:
            kwargs["training"] = False
        outputs = keras.tree.flatten(layer.call(*args, **kwargs))
        inner = opened(read_graph(keras.Model(list(fresh.values()), outputs)))
    except Exception:  # code of others may do anything with a tensor
        return None
    calls = tuple(dataclasses.replace(one, is_new=True, node=None) for one in inner.graph.calls)
    return dataclasses.replace(inner, graph=dataclasses.replace(inner.graph, calls=calls))


def _looks_like_se(call: Call) -> bool:
    """Returns whether a layer returns a map like the one it takes, and its name or its parts are those of SE."""
    if not call.inputs or len(call.outputs) != 1 or len(call.outputs[0].shape) not in (3, 4, 5):
        return False
    if tuple(call.inputs[0].shape) != tuple(call.outputs[0].shape):
        return False
    layer = call.operation
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__)
    parts = list(layers_inside(layer))
    has_squeeze = any(type(part).__name__.startswith("Global") for part in parts)
    return bool(_NAMES.search(words)) or (has_squeeze and any(map(is_learned, parts)))
