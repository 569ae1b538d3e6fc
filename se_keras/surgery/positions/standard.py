"""Positions determined by the network's structure, by one table of patterns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import keras

from se_keras.surgery.calls import Call
from se_keras.surgery.graph import read_graph
from se_keras.surgery.layer_types import CONVOLUTIONS, activation_of, is_depthwise, is_learned, is_pointwise
from se_keras.surgery.positions.chosen import chosen_positions
from se_keras.surgery.positions.position import HAS_SE, Position, Where, models_with_paths, not_looked_into
from se_keras.surgery.positions.structure import Structure

# As the last activation of a network, these compute its answer.
ANSWERS = ("softmax", "sigmoid", "tanh")

Matches = Mapping[str, set[Call]]
"""Maps the name of each earlier pattern in the table to the calls that matched it."""


@dataclasses.dataclass(frozen=True)
class End:
    """A call that a block can follow.

    Args:
        call: The call; None for an input of the model.
        reason: The reason why it is a position.
        has_se: Whether an SE block already acts on it.
    """

    call: Call | None
    reason: str
    has_se: bool


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A rule that finds the positions at one call of a graph.

    Args:
        name: Its name.
        description: The calls that it looks for.
        ends: Returns the positions at a call, possibly none, or None if the call does not match.
        is_last_resort: Whether it applies only to networks in which no other pattern finds a position.
    """

    name: str
    description: str
    ends: Callable[[Structure, Call, Matches], Iterable[End] | None]
    is_last_resort: bool = False


def _inverted(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if not is_depthwise(call.operation):
        return None
    end, has_se, following = structure.group_end(call)
    if following is None or not _is_pointwise(following):
        return None
    if not structure.narrows(following) or not structure.is_linear(following):
        return None
    return [End(end, f"depthwise convolution before {following.name} narrows the map", has_se)]


def _residual(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if not structure.is_addition(call) or structure.feeds_module(call):
        return None
    branches = structure.branches(call)
    together = [one for calls in branches for one in calls]
    counts = [sum(is_learned(one.operation) for one in calls) for calls in branches]
    longer = [number for number, count in enumerate(counts) if count > min(counts)]
    if not longer or min(counts) > 1 or any(map(structure.enlarges, together)):
        return None
    if not any(_is_convolution(one) for number in longer for one in branches[number]):
        return None
    if matches["inverted"] & set(together):
        return []
    has_se = structure.has_block_end(together) or structure.is_excited_after(call)
    ends = (structure.branch_end(call.inputs[number]) for number in longer)
    return [End(end, f"end of the residual branch before {call.name}", has_se) for end in ends]


def _module(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if call not in structure.modules or structure.leads_to(call, matches["residual"] | structure.modules):
        return None  # only the outermost concatenation, and none in a residual branch
    return [End(call, "concatenation of a module", structure.is_excited_after(call))]


def _dense(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if not structure.is_concatenation(call) or call in structure.modules:
        return None
    branches = structure.branches(call)
    learned = [number for number, calls in enumerate(branches) if any(is_learned(one.operation) for one in calls)]
    if len(learned) != 1 or len(branches) < 2:
        return None
    calls = branches[learned[0]]
    if not any(map(_is_convolution, calls)) or matches["inverted"] & set(calls):
        return None
    if any(structure.enlarges(one) for many in branches for one in many):
        return None
    has_se = structure.has_block_end(calls) or structure.is_excited_after(call)
    return [End(structure.branch_end(call.inputs[learned[0]]), f"new features before {call.name}", has_se)]


def _plain(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if not _is_convolution(call) or structure.is_pooled(call.outputs[0]) or call in structure.gate_calls:
        return None
    end, has_se, following = structure.group_end(call)
    activation = activation_of(end.operation)
    is_group = end is not call or activation != "linear"
    if not is_group or (is_depthwise(call.operation) and _is_pointwise(following)):
        return None
    if activation in ANSWERS and not structure.is_learned_after(end):
        return None
    reason = "convolution and activation" if end is call else f"convolution {call.name} with what follows it"
    return [End(end, reason, has_se)]


PATTERNS = (
    Pattern("inverted", "depthwise convolutions before a 1x1 convolution that narrows the map", _inverted),
    Pattern("residual", "additions of a shortcut and a branch with a convolution", _residual),
    Pattern("module", "concatenations of at least two branches with a convolution each", _module),
    Pattern("dense", "concatenations of a tensor and the features computed from it", _dense),
    Pattern("plain", "convolutions with a normalization or an activation", _plain, is_last_resort=True),
)
LOOKED_FOR = "; ".join(
    f"and, if there is none of these, {pattern.description}" if pattern.is_last_resort else pattern.description
    for pattern in PATTERNS
)


def find_positions(model: keras.Model, where: Where = "auto") -> tuple[Position, ...]:
    """Finds the positions for SE blocks in a network; `insert_squeeze_excite` inserts the blocks.

    With `where="auto"`, the positions depend on the network's structure:

    - Additions (ResNet, Xception, ConvNeXt): the end of the residual branch, after its last
      normalization and before layers that only drop or scale it.
    - Inception modules (also Fire modules and NASNet's cells): the outermost concatenation.
    - Dense layers (DenseNet, ShuffleNet's units with stride 2): the new features, before their
      concatenation with the old ones.
    - Inverted residuals (MobileNetV2): the widened map, after the normalization and activation of
      the depthwise convolution, as in MobileNetV3 and EfficientNet. There, the paper's rule, the
      end of the branch, is `where="project_BN$"`.
    - Only if there is none of these (VGG, MobileNet): each convolution with its normalization and
      activation. A depthwise convolution and the 1x1 convolution after it count as one. A
      convolution that computes the network's answer is left alone.

    Reference: arXiv 1709.01507v4, section 3.3, figures 2 and 3; arXiv 1905.02244, section 5.3,
    for inverted residuals.

    Args:
        model: A functional model, or a built sequential one.
        where: "auto"; a regular expression that is searched for in the layers' names (`re.search`);
            a layer type; a function that returns whether a layer takes a block; or a list of
            names, in which "model/layer" is a layer of a nested model and "layer" is a layer of
            any model.

    Returns:
        The positions in the order of the graph, including those that already have SE or cannot
        take it, with the reason.

    Raises:
        ValueError: The model is subclassed, or sequential without an input shape; no layer matches
            `where`; or the list has a name that no layer has, or the name of a layer that cannot
            take a block.
        TypeError: `where` is none of these.

    Example:

    >>> [position.layer for position in find_positions(keras.applications.InceptionV3(weights=None))][:3]
    ['mixed0', 'mixed1', 'mixed2']
    """
    if isinstance(where, str) and where == "auto":
        return standard_positions(model)
    return chosen_positions(model, where)


def standard_positions(model: keras.Model) -> tuple[Position, ...]:
    """Returns the positions where the paper and later networks have SE, by the network's structure.

    Args:
        model: A functional model, or a built sequential one.

    Returns:
        At least one position, in the order of the graph, including those that already have SE.

    Raises:
        ValueError: There is no such position.
    """
    positions = [
        dataclasses.replace(position, layer=prefix + position.layer)
        for prefix, one in models_with_paths(model)
        for position in _positions_in(Structure(read_graph(one)))
    ]
    if not positions:
        raise ValueError(
            f"No standard position for SE blocks was found in {model.name!r}. Looked for: {LOOKED_FOR}. Name layers "
            f"with `where`: a regular expression, a layer type, a function, or a list.{not_looked_into(model)}"
        )
    return tuple(positions)


def _positions_in(structure: Structure) -> list[Position]:
    matches: dict[str, set[Call]] = {}
    found: dict[Call, Position] = {}
    for pattern in PATTERNS:
        if pattern.is_last_resort and found:
            continue
        ends = {call: pattern.ends(structure, call, matches) for call in structure.graph.calls}
        matches[pattern.name] = {call for call, those in ends.items() if those is not None}
        for end in (end for those in ends.values() for end in those or ()):
            if end.call is not None and end.call.node is not None:  # not made while the graph was read
                obstacle = HAS_SE if end.has_se or structure.is_excited(end.call) else ""
                found.setdefault(end.call, Position(end.call.path, end.reason, obstacle, end.call))
    positions: dict[int, Position] = {}
    for call in structure.graph.calls:  # the calls of a nested model that is called twice are in the graph twice
        if call in found:
            positions.setdefault(id(call.node), found[call])
    return list(positions.values())


def _is_convolution(call: Call) -> bool:
    return isinstance(call.operation, CONVOLUTIONS)


def _is_pointwise(call: Call | None) -> bool:
    return call is not None and is_pointwise(call.operation, len(call.inputs[0].shape))
