"""The table of patterns that `where="auto"` looks for in a network's structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from se_keras.surgery.calls import Call
from se_keras.surgery.layer_types import CONVOLUTIONS, activation_of, is_depthwise, is_pointwise
from se_keras.surgery.positions.structure import Structure

# As the last activation of a network, these compute its output.
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
    is_ghost = structure.is_ghost(call)
    if not is_ghost and not is_depthwise(call.operation):
        return None
    start = structure.gated_end(call) if is_ghost else call
    end, has_se, following = structure.group_end(start)
    if following is None or not _is_pointwise(following):
        return None
    if not structure.narrows(following) or not structure.is_linear(following):
        return None
    what = "Ghost module" if is_ghost else "depthwise convolution"
    return [End(end, f"{what} before {following.name} narrows the map", has_se)]


def _residual(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if not structure.is_addition(call) or structure.feeds_module(call):
        return None
    branches = structure.branches(call)
    together = [one for calls in branches for one in calls]
    learned = [[one for one in calls if structure.learns(one)] for calls in branches]
    counts = [len(calls) for calls in learned]
    longer = [number for number, count in enumerate(counts) if count > min(counts)]
    mixing = [sum(not structure.is_depthwise(one) for one in calls) for calls in learned]
    maps = [one for one in together if one not in structure.gate_calls]
    if not longer or min(mixing) > 1 or any(map(structure.enlarges, maps)):
        return None
    if not any(structure.convolves(one) for number in longer for one in learned[number]):
        return None
    start = structure.entrances(call, counts.index(min(counts)))
    if not all(start <= structure.entrances(call, number) for number in longer):
        return None  # another tensor than the one that the branch is computed from, as in Res2Net's chain of slices
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
    if not structure.is_concatenation(call) or call in structure.modules or structure.is_ghost(call):
        return None
    branches = structure.branches(call)
    learned = [number for number, calls in enumerate(branches) if any(map(structure.learns, calls))]
    if len(learned) != 1 or len(branches) < 2:
        return None
    (number,) = learned
    if not any(map(structure.convolves, branches[number])) or matches["inverted"] & set(branches[number]):
        return None
    if any(structure.enlarges(one) for many in branches for one in many):
        return None
    old = set().union(*(structure.origins(x) for other, x in enumerate(call.inputs) if other != number))
    if not structure.entrances(call, number) <= old:
        return None  # a skip connection that is gated, not features that are computed from the old ones
    has_se = structure.has_block_end(branches[number]) or structure.is_excited_after(call)
    return [End(structure.branch_end(call.inputs[number]), f"new features before {call.name}", has_se)]


def _aggregation(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if not structure.is_chain(call) or {*matches["residual"], *matches["inverted"]} & _calls_between(structure, call):
        return None
    end, has_se, following = None, False, structure.only_taker(call.outputs[0])
    while following is not None and _is_pointwise(following):
        end, has_se, following = structure.group_end(following)
    return None if end is None else [End(end, f"projection of the features in {call.name}", has_se)]


def _calls_between(structure: Structure, call: Call) -> set[Call]:
    return {one for calls in structure.branches(call) for one in calls}


def _composite(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if call not in structure.composites or structure.is_inside_a_layer:
        return None
    if len(call.outputs[0].shape) not in (3, 4, 5) or structure.is_pooled(call.outputs[0]):
        return None
    reason = f"layer of class {type(call.operation).__name__}, which is not expanded"
    return [End(call, reason, structure.is_excited_after(call))]


def _plain(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if structure.is_inside_a_layer or structure.is_pooled(call.outputs[0]):
        return None
    end = _unit_end(structure, call)
    if end is None:
        return None
    _, has_se, following = structure.group_end(call)
    if is_depthwise(call.operation) and _is_pointwise(following):
        return None
    has_se = has_se or (_is_pointwise(call) and structure.is_excited_before(call))
    reason = "convolution and activation" if end is call else f"convolution {call.name} with what follows it"
    return [End(end, reason, has_se)]


def _unit_end(structure: Structure, call: Call) -> Call | None:
    """Returns the last call of a convolution with its normalization or activation, unless it computes the output."""
    if not isinstance(call.operation, CONVOLUTIONS):
        return None
    end, _, _ = structure.group_end(call)
    activation = activation_of(end.operation)
    if end is call and activation == "linear":
        return None
    return None if activation in ANSWERS and not structure.is_learned_after(end) else end


def _decoder(structure: Structure, call: Call, matches: Matches) -> Iterable[End] | None:
    if not structure.doubles(call) or structure.is_pooled(call.inputs[0]):
        return None
    if not structure.is_learned_before(call):
        return None  # images that are resized first
    end, has_se = structure.stage_end(call, lambda one: _unit_end(structure, one))
    if end is None or matches["residual"] & set(structure.graph.takers(end.outputs[0])):
        return None
    return [End(end, f"end of the decoder stage after {call.name}", has_se)]


# In the order in which they apply; the first that finds a call states the reason.
PATTERNS = (
    Pattern("inverted", "depthwise convolutions and Ghost modules before a 1x1 convolution that narrows", _inverted),
    Pattern("residual", "additions of a shortcut and a branch with a convolution", _residual),
    Pattern("module", "concatenations of at least two branches with a convolution each", _module),
    Pattern("dense", "concatenations of a tensor and the features computed from it", _dense),
    Pattern("aggregation", "1x1 convolutions after the concatenation of a chain of features", _aggregation),
    Pattern("composite", "layers of other classes that hold convolutions", _composite, is_last_resort=True),
    Pattern("plain", "convolutions with a normalization or an activation", _plain, is_last_resort=True),
    Pattern("decoder", "the last convolution before a decoder enlarges the map again", _decoder),
)


def _described() -> str:
    usual = "; ".join(pattern.description for pattern in PATTERNS if not pattern.is_last_resort)
    last = " and ".join(pattern.description for pattern in PATTERNS if pattern.is_last_resort)
    return f"{usual}; and, if there is none of these outside of decoders, {last}"


LOOKED_FOR = _described()


def _is_pointwise(call: Call | None) -> bool:
    return call is not None and is_pointwise(call.operation, len(call.inputs[0].shape))
