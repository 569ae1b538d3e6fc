"""Positions for SE blocks, and their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from se_keras.surgery.calls import Call
from se_keras.surgery.graph import read_nested_graph
from se_keras.surgery.layer_facts import hides_layers, is_functional, repeated_model, shown_with_weights

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


def not_looked_into(model: keras.Model) -> str:
    """Returns a sentence that names the layers of a model that are not expanded, or "" if there are none."""
    hidden = {
        path: call.operation
        for prefix, one in models_with_paths(model)
        for path, call in calls_with_paths(one, prefix)
        if hides_layers(call.operation)
    }
    if not hidden:
        return ""
    shown = ", ".join(shown_with_weights(layer) for layer in hidden.values())
    return f" Not expanded: {shown}; only functional models, nested or in TimeDistributed, are expanded."


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
