"""A place for an SE block, and how a user calls it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from se_keras.surgery.graph import Call, read_nested_graph
from se_keras.surgery.layer_facts import hides_layers, is_functional, repeated_model, shown_with_weights

Where = str | type | Callable[[Any], bool] | Collection[str]

HAS_SE = "it has SE already"


@dataclasses.dataclass(frozen=True)
class Position:
    """A place for an SE block, right behind a layer.

    Args:
        layer: The layer's name; "model/layer" for one inside a nested model.
        reason: Why it is a place.
        obstacle: Why no block goes there, e.g. "it has SE already"; "" if one does.
        call: The layer's call in the graph.
    """

    layer: str
    reason: str
    obstacle: str = ""
    call: Call | None = dataclasses.field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        if self.obstacle:
            return f"nothing behind {self.layer} ({self.reason}): {self.obstacle}"
        return f"SE behind {self.layer}: {self.reason}"


def models_with_paths(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.Model]]:
    """A model, and those that `TimeDistributed` layers in it apply to every step; each once.

    Args:
        model: Functional, or sequential and built.
        prefix: What the paths begin with.

    Yields:
        What the paths of its layers begin with, and the model.
    """
    yield prefix, model
    seen: set[int] = set()
    for path, call in calls_with_paths(model, prefix):
        inner = repeated_model(call.operation)
        if inner is not None and id(inner) not in seen:
            seen.add(id(inner))
            yield from models_with_paths(inner, f"{path}/")


def not_looked_into(model: keras.Model) -> str:
    """A sentence that names the layers of a model whose insides are not looked into; "" where there are none."""
    hidden = {
        path: call.operation
        for prefix, one in models_with_paths(model)
        for path, call in calls_with_paths(one, prefix)
        if hides_layers(call.operation)
    }
    if not hidden:
        return ""
    shown = ", ".join(shown_with_weights(layer) for layer in hidden.values())
    return f" Not looked into: {shown}; only functional models, nested or in TimeDistributed, are opened."


def calls_with_paths(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, Call]]:
    """Every call of a model with its path, "model/layer" for one inside a nested model; each once.

    Args:
        model: Functional, or sequential and built.
        prefix: What the paths begin with.

    Yields:
        Path and call.
    """
    nested: set[int] = set()
    for call in read_nested_graph(model).calls:
        yield prefix + call.name, call
        if is_functional(call.operation) and id(call.operation) not in nested:
            nested.add(id(call.operation))
            yield from calls_with_paths(call.operation, f"{prefix}{call.name}/")
