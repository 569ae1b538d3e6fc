"""Positions that the user chooses by a pattern, a layer type, a function, or a list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import keras

from se_keras.surgery.calls import Call
from se_keras.surgery.graph import input_layers, read_graph
from se_keras.surgery.positions.position import (
    HAS_SE,
    Position,
    Where,
    calls_with_paths,
    models_with_paths,
    not_looked_into,
)
from se_keras.surgery.positions.structure import Structure


def chosen_positions(model: keras.Model, where: Where) -> tuple[Position, ...]:
    """Returns the positions at the layers that match `where`, in the order of the graph.

    Args:
        model: A functional model, or a built sequential one.
        where: As in `find_positions`, except "auto".

    Returns:
        At least one position, including layers that cannot take a block, with the reason.

    Raises:
        ValueError: No layer matches; or a list has a name that no layer has, or the name of a layer that cannot take
            a block.
        TypeError: `where` has a type that `find_positions` does not accept.
    """
    models = list(models_with_paths(model))
    calls = [found for prefix, one in models for found in calls_with_paths(one, prefix)]
    structures = [Structure(read_graph(one)) for _, one in models]
    excited = {id(call.node) for one in structures for call in one.graph.calls if call.node and one.is_excited(call)}
    holders = {holder for one in structures for holder in one.holders}
    fits, names = _predicate(where)
    positions = []
    for path, call in calls:
        if fits(path, call.operation):
            obstacle = HAS_SE if id(call.node) in excited or id(call.operation) in holders else _obstacle(call)
            if obstacle and names and obstacle != HAS_SE:
                raise ValueError(f"An SE block cannot follow {path!r}: {obstacle}. Name other layers.")
            positions.append(Position(path, f"chosen by {_shown(where)}", obstacle, call))
    found = {name for name in names for path, _ in calls if _is_named(path, name)}
    unknown = [name for name in names if name not in found]
    if unknown or not positions:
        raise ValueError(_nothing_fits(model, where, unknown, [path for path, _ in calls]))
    return tuple(positions)


def _predicate(where: Where) -> tuple[Callable[[str, Any], bool], tuple[str, ...]]:
    """Returns a function of a layer's path and the layer, and the names if `where` is a list of names."""
    if isinstance(where, str):
        try:
            pattern = re.compile(where)
        except re.error as error:
            raise ValueError(
                f"`where` must be 'auto' or a regular expression; received {where!r}: {error}. To give exact names, "
                "pass a list."
            ) from error
        return (lambda path, layer: pattern.search(path.rpartition("/")[2]) is not None), ()
    if isinstance(where, type):
        return (lambda path, layer: isinstance(layer, where)), ()
    if callable(where):
        return (lambda path, layer: bool(where(layer))), ()
    if isinstance(where, Iterable):
        names = tuple(where)
        if names and all(isinstance(name, str) for name in names):
            return (lambda path, layer: any(_is_named(path, name) for name in names)), names
    raise TypeError(
        "`where` must be 'auto', a regular expression, a layer type, a function of a layer, or a list of names; "
        f"received {where!r}."
    )


def _is_named(path: str, name: str) -> bool:
    return path == name or path.endswith(f"/{name}")


def _shown(where: Where) -> str:
    if isinstance(where, str):
        return f"the pattern {where!r}"
    if isinstance(where, type):
        return f"its type, {where.__name__}"
    return f"{getattr(where, '__name__', 'a function')}" if callable(where) else "name"


def _nothing_fits(model: keras.Model, where: Where, unknown: list[str], paths: list[str]) -> str:
    named = [
        layer.name
        for layer in input_layers(model)
        if layer.name in unknown or (not unknown and _predicate(where)[0](layer.name, layer))
    ]
    if named:
        return (
            f"An SE block must follow a layer that computes a map; {named} of {model.name!r} is an input. "
            "Name the first convolution instead."
        )
    rule = f"have the name {unknown}" if unknown else f"match where={where!r}"
    kinds = "regular expressions are searched for in names" if isinstance(where, str) else "names may be 'model/layer'"
    return (
        f"No layers of {model.name!r} {rule} ({kinds}). Its layers: {', '.join(paths[:12])}"
        f"{f' and {len(paths) - 12} more' if len(paths) > 12 else ''}.{not_looked_into(model)}"
    )


def _obstacle(call: Call) -> str:
    """Returns the reason why a block cannot follow a call, or ""."""
    if len(call.outputs) != 1:
        return f"it returns {len(call.outputs)} tensors"
    shape = tuple(call.outputs[0].shape)
    if len(shape) not in (3, 4, 5):
        return f"SE takes maps of rank 3 to 5, and it returns shape {shape}"
    if "float" not in call.outputs[0].dtype:
        return f"SE takes floating-point numbers, and it returns {call.outputs[0].dtype}"
    return ""
