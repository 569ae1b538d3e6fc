"""A place for an SE block, and how a user calls it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from se_keras.surgery.graph import Call, is_functional, read_nested_graph

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
