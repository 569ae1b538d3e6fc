"""The only engine that converts a checkpoint's tensors into a model's weights: strictly, by its family's rules.

tensors = {"layer0.conv1.weight": ..., ...}
convert(tensors, se_keras.create_model("se_resnet50"), "timm_legacy")
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from se_keras.errors import WeightsMismatchError, one_of
from se_keras.weights.rules import FAMILIES, Family
from se_keras.weights.values import check_values

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Transform:
    """A rule that turns tensors into the value of a variable.

    Args:
        sources: Maps a variable's shape to the shape of each tensor that it is made from.
        apply: Maps these tensors to the variable's value.
    """

    sources: Callable[[Shape], tuple[Shape, ...]]
    apply: Callable[..., np.ndarray]


def _divided(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return total / count if count[0] else np.zeros_like(total)  # Caffe's rule for an untrained batch normalization


TRANSFORMS = {
    "same": Transform(lambda shape: (shape,), lambda tensor: tensor),
    # (out, in / groups, height, width) -> (height, width, in / groups, out)
    "conv": Transform(lambda s: ((s[3], s[2], s[0], s[1]),), lambda tensor: tensor.transpose(2, 3, 1, 0)),
    # (channels, 1, height, width) -> (height, width, channels, 1)
    "depthwise": Transform(lambda s: ((s[2], s[3], s[0], s[1]),), lambda tensor: tensor.transpose(2, 3, 0, 1)),
    # (out, in) -> (in, out)
    "dense": Transform(lambda s: ((s[1], s[0]),), lambda tensor: tensor.T),
    # (out, in, 1, 1) -> (in, out)
    "pointwise": Transform(lambda s: ((s[1], s[0], 1, 1),), lambda tensor: tensor[:, :, 0, 0].T),
    # (channels,) and (1,) -> (channels,)
    "divided": Transform(lambda shape: (shape, (1,)), _divided),
}


@dataclasses.dataclass(frozen=True)
class _Assignment:
    """A variable and the tensors that it is made from."""

    layer: str
    variable: Any
    names: tuple[str, ...]
    transform: Transform

    def shapes(self) -> dict[str, Shape]:
        """Returns the shape of each tensor by its name in the checkpoint."""
        shapes = self.transform.sources(tuple(self.variable.shape))
        return dict(zip(self.names, shapes, strict=True))


def convert(tensors: Mapping[str, np.ndarray], model: keras.Model, family: str, *, skip: Collection[str] = ()) -> None:
    """Fills a model with a checkpoint's tensors.

    Every variable is assigned exactly once, and every tensor belongs to exactly one layer. Everything
    is checked before the first assignment: the model is either filled completely or left unchanged.

    Args:
        tensors: The checkpoint's tensors, with names and layout as published, of any float type.
        model: A model of this package, of the lineage that the checkpoint was trained in.
        family: How the checkpoint names its tensors, a key of `rules.FAMILIES`.
        skip: This package's names of layers that keep their values, such as ("logits",) for a
            classifier with other classes, or none. Their tensors may be absent, unused, or of any shape.

    Raises:
        WeightsMismatchError: A tensor is missing, left over, or of another shape.
        ValueError: The family is unknown or has no name for a layer, or a tensor contains integers,
            NaN, or infinite values.
    """
    rules = FAMILIES[one_of("family", family, FAMILIES)]
    assignments = list(_assignments(model, family, skip))
    skipped = _skipped_names(rules, skip)
    found = {
        name: tensor for name, tensor in tensors.items() if not name.endswith(rules.ignored) and name not in skipped
    }
    _check(found, assignments, model, family)
    for assignment in assignments:
        for name in assignment.names:
            check_values(name, np.asarray(found[name]), assignment.variable, source=f"the {family!r} checkpoint")
    for assignment in assignments:
        values = (np.asarray(found[name]) for name in assignment.names)
        assignment.variable.assign(assignment.transform.apply(*values))


def expected_tensors(model: keras.Model, family: str) -> dict[str, Shape]:
    """Returns the tensors of a checkpoint that would fit a model.

    Args:
        model: A model of this package.
        family: How the checkpoint names its tensors, a key of `rules.FAMILIES`.

    Returns:
        Shape of each tensor by its name, in the checkpoint's own layout.

    Raises:
        ValueError: The family is unknown or has no name for a layer.
    """
    shapes: dict[str, Shape] = {}
    for assignment in _assignments(model, family, ()):
        shapes.update(assignment.shapes())
    return shapes


def _assignments(model: keras.Model, family: str, skip: Collection[str]) -> Iterator[_Assignment]:
    rules = FAMILIES[one_of("family", family, FAMILIES)]
    for layer in model.layers:
        if not layer.weights or layer.name in skip:
            continue
        prefix = _prefix(rules, layer.name)
        sources = rules.variables.get(type(layer).__name__)
        if prefix is None or sources is None:
            raise ValueError(
                f"The family {family!r} has no name for the layer {layer.name!r} ({type(layer).__name__}) of "
                f"{model.name!r}: the checkpoint belongs to another network. Families: {', '.join(FAMILIES)}."
            )
        for variable in layer.weights:
            source = sources[variable.name]
            names = tuple(prefix + suffix for suffix in source.suffixes)
            yield _Assignment(layer.name, variable, names, TRANSFORMS[source.transform])


def _prefix(rules: Family, layer: str) -> str | None:
    match = re.fullmatch(rules.block_layer, layer)
    if match is None:
        return rules.layers.get(layer)
    stage, block, leaf = match.groups()
    return rules.block(int(stage), _number(block)) + rules.leaves[leaf] if leaf in rules.leaves else None


def _number(text: str) -> int:
    """Returns the number of a block, which some networks write as a letter."""
    return int(text) if text.isdecimal() else string.ascii_lowercase.index(text) + 1


def _skipped_names(rules: Family, skip: Collection[str]) -> set[str]:
    suffixes = {
        suffix for sources in rules.variables.values() for source in sources.values() for suffix in source.suffixes
    }
    prefixes = [_prefix(rules, layer) for layer in skip]
    return {prefix + suffix for prefix in prefixes if prefix is not None for suffix in suffixes}


def _check(found: Mapping[str, np.ndarray], assignments: list[_Assignment], model: keras.Model, family: str) -> None:
    owners: dict[str, str] = {}
    expected: dict[str, str] = {}
    wanted: dict[str, Shape] = {}
    for assignment in assignments:
        for name, shape in assignment.shapes().items():
            if owners.setdefault(name, assignment.layer) != assignment.layer:
                raise ValueError(
                    f"The rules of {family!r} read {name!r} for two layers of {model.name!r}: {owners[name]} and "
                    f"{assignment.layer}. Correct the rules: each tensor belongs to one layer."
                )
            wanted[name] = shape
            if name not in found or tuple(found[name].shape) != shape:
                expected.setdefault(name, f"{shape}  for {assignment.layer}/{assignment.variable.name}")
    unused = {
        name: str(tuple(tensor.shape)) for name, tensor in found.items() if tuple(tensor.shape) != wanted.get(name)
    }
    if expected or unused:
        count = len(expected.keys() | unused.keys())
        title = f"{model.name} <- {family}: {count} of {len(wanted.keys() | found.keys())} tensors do not match"
        raise WeightsMismatchError(title, expected, unused, _hint(found, wanted, model, family))


def _hint(found: Collection[str], wanted: Collection[str], model: keras.Model, family: str) -> str:
    """Returns a hint at another family whose names fit the checkpoint better, if there is one."""
    matches = {family: len(set(found) & set(wanted))}
    for other in FAMILIES:
        try:
            matches[other] = len(set(found) & expected_tensors(model, other).keys())
        except ValueError:  # a family for other networks
            continue
    best = max(matches, key=lambda name: matches[name])
    return "" if matches[best] == matches[family] else f"the names look like those of the family {best!r}."
