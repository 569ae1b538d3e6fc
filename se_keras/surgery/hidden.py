"""The layers of a model that are not expanded, and what they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import keras

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Graph
from se_keras.surgery.foreign import Opened, opened
from se_keras.surgery.layer_facts import hides_layers, is_functional, layers_inside, shown_with_weights
from se_keras.surgery.layer_types import BATCH_NORMS, CONVOLUTIONS

CONVOLUTION, BATCH_NORM, BLOCK = "convolution", "batch normalization", "SE block"
EXPANDED = "only functional models, nested or in TimeDistributed, are expanded"


@dataclasses.dataclass(frozen=True)
class Hidden:
    """A layer that is not expanded.

    Args:
        layer: Its name; "model/layer" for one inside a nested model.
        operation: The layer.
        parts: Maps what surgery looks for to the number of such layers inside it, without zeros.
    """

    layer: str
    operation: Any
    parts: Mapping[str, int]

    @property
    def kind(self) -> str:
        """Returns the name of its class."""
        return type(self.operation).__name__

    @property
    def is_model(self) -> bool:
        """Returns whether it is a model."""
        return isinstance(self.operation, keras.Model)


def find_hidden(graph: Graph, inside: Opened | None = None) -> tuple[Hidden, ...]:
    """Finds the layers of a graph that are not expanded and hold models or layers of the kinds that surgery changes.

    Args:
        graph: The graph, with nested models expanded.
        inside: The result of `opened` for it, if that is known.

    Returns:
        The layers in the order of the graph, each once.
    """
    blocks = (inside or opened(graph)).counts
    calls = {id(call.operation): call for call in reversed(graph.calls)}
    closed = [
        Hidden(call.path or call.name, call.operation, _parts(call.operation, blocks.get(number, 0)))
        for number, call in reversed(calls.items())
        if hides_layers(call.operation) or is_functional(call.operation) or number in blocks
    ]
    return tuple(one for one in closed if one.parts or one.is_model)


def _parts(layer: Any, blocks: int) -> dict[str, int]:
    inside = list(layers_inside(layer))
    counts = {
        CONVOLUTION: sum(isinstance(part, CONVOLUTIONS) for part in inside),
        BATCH_NORM: sum(type(part) in BATCH_NORMS for part in inside),
        BLOCK: sum(isinstance(part, SqueezeExcite) for part in inside) + blocks,
    }
    return {what: count for what, count in counts.items() if count}


def shown_hidden(hidden: Iterable[Hidden], parts: Iterable[str] = (CONVOLUTION, BATCH_NORM, BLOCK)) -> str:
    """Returns what layers hide, by class, for a message: "4 SE blocks inside 4 layers of class Block (96 weights)".

    Args:
        hidden: The layers.
        parts: The kinds of layers inside to count.
    """
    kinds: dict[str, list[Hidden]] = {}
    for one in hidden:
        kinds.setdefault(one.kind, []).append(one)
    groups = [(counted(those, parts), (one.operation for one in those)) for those in kinds.values()]
    return ", ".join(f"{what} inside {shown_with_weights(*layers)}" for what, layers in groups)


def counted(hidden: Collection[Hidden], parts: Iterable[str] = (CONVOLUTION, BATCH_NORM, BLOCK)) -> str:
    """Returns what layers hold, for a message: "3 convolutions and 3 batch normalizations"."""
    totals = {what: sum(one.parts.get(what, 0) for one in hidden) for what in parts}
    shown = [f"{count:,} {what}{'s' if count > 1 else ''}" for what, count in totals.items() if count]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown) or "everything"
