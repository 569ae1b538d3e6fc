"""Positions that the user names: by a pattern, a layer type, a function or a list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import keras

from se_keras.layers import SqueezeExcite
from se_keras.surgery.graph import Call, read_graph
from se_keras.surgery.positions.excitations import Excitations
from se_keras.surgery.positions.flow import Flow
from se_keras.surgery.positions.position import (
    HAS_SE,
    Position,
    Where,
    calls_with_paths,
    models_with_paths,
    not_looked_into,
)


def chosen_positions(model: keras.Model, where: Where) -> tuple[Position, ...]:
    """The layers that fit `where`, in the order of the graph.

    Args:
        model: Functional, or sequential and built.
        where: As in `find_positions`, but "auto".

    Returns:
        At least one position; also of layers that cannot take a block, with the reason.

    Raises:
        ValueError: Nothing fits; a name in a list that no layer has, or of a layer that cannot take a block.
        TypeError: `where` is none of what `find_positions` takes.
    """
    models = list(models_with_paths(model))
    calls = [found for prefix, one in models for found in calls_with_paths(one, prefix)]
    blocks = [Excitations(Flow(read_graph(one))) for _, one in models]
    excited = {id(call.record) for one in blocks for call in one.flow.graph.calls if one.is_excited(call)}
    fits, names = _predicate(where)
    positions = []
    for path, call in calls:
        if fits(path, call.operation):
            obstacle = _obstacle(call, excited)
            if obstacle and names and obstacle != HAS_SE:
                raise ValueError(f"An SE block cannot go behind {path!r}: {obstacle}. Name other layers.")
            positions.append(Position(path, f"chosen by {_shown(where)}", obstacle, call))
    found = {name for name in names for path, _ in calls if _is_named(path, name)}
    unknown = [name for name in names if name not in found]
    if unknown or not positions:
        raise ValueError(_nothing_fits(model, where, unknown, [path for path, _ in calls]))
    return tuple(positions)


def _predicate(where: Where) -> tuple[Callable[[str, Any], bool], tuple[str, ...]]:
    """A function of a layer's path and the layer; and the names, if `where` is a list of them."""
    if isinstance(where, str):
        try:
            pattern = re.compile(where)
        except re.error as error:
            raise ValueError(
                f"`where` must be 'auto' or a regular expression; {where!r} is none: {error}. For names as they are, "
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
    inputs = [x._keras_history.operation for x in model.inputs]
    named = [
        layer.name
        for layer in inputs
        if layer.name in unknown or (not unknown and _predicate(where)[0](layer.name, layer))
    ]
    if named:
        return (
            f"An SE block goes behind a layer that computes a map; {named} of {model.name!r} is an input. "
            "Name the first convolution instead."
        )
    rule = f"have the name {unknown}" if unknown else f"fit where={where!r}"
    kinds = "regular expressions are searched in names" if isinstance(where, str) else "names may be 'model/layer'"
    return (
        f"No layers of {model.name!r} {rule} ({kinds}). Its layers: {', '.join(paths[:12])}"
        f"{f' and {len(paths) - 12} more' if len(paths) > 12 else ''}.{not_looked_into(model)}"
    )


def _obstacle(call: Call, excited: set[int]) -> str:
    """Why a block cannot go behind a call, or ""."""
    if isinstance(call.operation, SqueezeExcite) or id(call.record) in excited:
        return HAS_SE
    if len(call.outputs) != 1:
        return f"it gives {len(call.outputs)} tensors"
    shape = tuple(call.outputs[0].shape)
    if len(shape) not in (3, 4, 5):
        return f"SE takes maps of rank 3 to 5, and it gives {shape}"
    if "float" not in call.outputs[0].dtype:
        return f"SE takes numbers with a fraction, and it gives {call.outputs[0].dtype}"
    return ""
