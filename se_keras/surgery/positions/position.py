"""Positions for SE blocks, and their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from se_keras.surgery.calls import Call
from se_keras.surgery.graph import read_graph, read_nested_graph
from se_keras.surgery.hidden import EXPANDED, Hidden, find_hidden, shown_hidden
from se_keras.surgery.layer_facts import is_functional, repeated_model

Where = str | type | Callable[[Any], bool] | Collection[str]

HAS_SE = "it already has SE"


@dataclasses.dataclass(frozen=True)
class Position:
    """A position for an SE block, directly after a layer.

    Args:
        layer: The layer's name; "model/layer" for one inside a nested model.
        reason: The reason why it is a position.
        obstacle: The reason why it cannot take a block, such as "it already has SE"; "" if it can.
        call: The layer's call in the graph.
    """

    layer: str
    reason: str
    obstacle: str = ""
    call: Call | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def is_unreached(self) -> bool:
        """Returns whether it is a layer that is not expanded, instead of a position."""
        return self.call is None and self.obstacle != HAS_SE

    def __str__(self) -> str:
        if self.obstacle:
            return f"nothing after {self.layer} ({self.reason}): {self.obstacle}"
        return f"SE after {self.layer}: {self.reason}"


def models_with_paths(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.Model]]:
    """Yields a model, and those that `TimeDistributed` layers in it apply to every step, each once.

    Args:
        model: A functional model, or a built sequential one.
        prefix: Prefix of the paths.

    Yields:
        The prefix of the paths of the model's layers, and the model.
    """
    yield prefix, model
    seen: set[int] = set()
    for path, call in calls_with_paths(model, prefix):
        inner = repeated_model(call.operation)
        if inner is not None and id(inner) not in seen:
            seen.add(id(inner))
            yield from models_with_paths(inner, f"{path}/")


def hidden_in(model: keras.Model) -> tuple[Hidden, ...]:
    """Returns the layers of a model that are not expanded, also of the models in its `TimeDistributed` layers."""
    return tuple(
        dataclasses.replace(hidden, layer=prefix + hidden.layer)
        for prefix, one in models_with_paths(model)
        for hidden in find_hidden(read_graph(one))
    )


def not_looked_into(model: keras.Model) -> str:
    """Returns a sentence that names the layers of a model that are not expanded, or "" if there are none."""
    hidden = hidden_in(model)
    return f" Not expanded: {shown_hidden(hidden)}; {EXPANDED}." if hidden else ""


def calls_with_paths(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, Call]]:
    """Yields every call of a model once, with its path: "model/layer" for a call inside a nested model.

    Args:
        model: A functional model, or a built sequential one.
        prefix: Prefix of the paths.

    Yields:
        The path and the call.
    """
    nested: set[int] = set()
    for call in read_nested_graph(model).calls:
        yield prefix + call.name, call
        if is_functional(call.operation) and id(call.operation) not in nested:
            nested.add(id(call.operation))
            yield from calls_with_paths(call.operation, f"{prefix}{call.name}/")
