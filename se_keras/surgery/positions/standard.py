"""Positions determined by the network's structure, with one rule per kind of unit."""

from __future__ import annotations

import dataclasses

import keras

from se_keras.layers import SqueezeExcite
from se_keras.surgery.graph import Call, read_graph
from se_keras.surgery.positions.flow import Flow
from se_keras.surgery.positions.kinds import CONVOLUTIONS, activation_of, is_depthwise, is_learned, is_pointwise
from se_keras.surgery.positions.position import (
    HAS_SE,
    Position,
    calls_with_paths,
    models_with_paths,
    not_looked_into,
)
from se_keras.surgery.positions.units import Units

# As the last activation of a network, these compute its answer.
ANSWERS = ("softmax", "sigmoid", "tanh")

LOOKED_FOR = (
    "additions of a shortcut and a branch with a convolution; concatenations of at least two branches with a "
    "convolution each; concatenations of a tensor and the features computed from it; depthwise convolutions before a "
    "1x1 convolution that narrows the map; and, if there is none of these, convolutions with a normalization or an "
    "activation"
)


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
        for position in _positions_in(one)
    ]
    if not positions:
        raise ValueError(
            f"No standard position for SE blocks was found in {model.name!r}. Looked for: {LOOKED_FOR}. Name layers "
            f"with `where`: a regular expression, a layer type, a function, or a list.{not_looked_into(model)}"
        )
    return tuple(positions)


def _positions_in(model: keras.Model) -> tuple[Position, ...]:
    units = Units(Flow(read_graph(model)))
    found: dict[Call, Position] = {}
    inverted = _inverted(units, found)
    residual = _residual(units, inverted, found)
    _modules(units, residual, found)
    _dense(units, inverted, found)
    if not found:
        _plain(units, found)
    paths = {id(call.record): path for path, call in calls_with_paths(model)}
    positions: dict[int, Position] = {}
    for call in units.flow.graph.calls:  # the calls of a nested model that is called twice are in the graph twice
        if call in found:
            record = id(call.record)
            positions.setdefault(record, dataclasses.replace(found[call], layer=paths[record]))
    return tuple(positions.values())


def _add(units: Units, found: dict[Call, Position], call: Call, reason: str, has_se: bool) -> None:
    if call.record is None:  # it was made while the graph was read
        return
    has_se = has_se or isinstance(call.operation, SqueezeExcite) or units.present.is_excited(call)
    found.setdefault(call, Position(call.name, reason, HAS_SE if has_se else "", call))


def _inverted(units: Units, found: dict[Call, Position]) -> set[Call]:
    """Adds inverted residuals: a linear 1x1 convolution narrows a depthwise one's map. Returns the depthwise calls."""
    depthwise_calls = set()
    for call in units.flow.graph.calls:
        if not is_depthwise(call):
            continue
        end, has_se, following = units.group_end(call)
        if following is None or not is_pointwise(following):
            continue
        before, after = units.flow.channels(following.inputs[0]), units.flow.channels(following.outputs[0])
        if before is None or after is None or after >= before or not units.is_linear(following):
            continue
        _add(units, found, end, f"depthwise convolution before {following.name} narrows the map", has_se)
        depthwise_calls.add(call)
    return depthwise_calls


def _residual(units: Units, inverted: set[Call], found: dict[Call, Position]) -> set[Call]:
    """Adds the ends of residual branches; returns the additions."""
    additions = set()
    for call in units.flow.graph.calls:
        if not units.is_addition(call) or units.feeds_module(call):
            continue
        own = units.flow.own(call)
        together = [one for calls in own for one in calls]
        counts = [sum(is_learned(one) for one in calls) for calls in own]
        branches = [number for number, count in enumerate(counts) if count > min(counts)]
        if not branches or min(counts) > 1 or any(units.enlarges(one) for one in together):
            continue
        if not any(isinstance(one.operation, CONVOLUTIONS) for number in branches for one in own[number]):
            continue
        additions.add(call)
        if inverted & set(together):
            continue
        has_se = units.present.end_in(together) or units.present.is_excited_after(call)
        for number in branches:
            end = units.branch_end(call.inputs[number])
            if end is not None:
                _add(units, found, end, f"end of the residual branch before {call.name}", has_se)
    return additions


def _modules(units: Units, additions: set[Call], found: dict[Call, Position]) -> None:
    """Adds the outermost concatenations of Inception modules that are not in a residual branch."""
    for call in units.modules:
        if not units.leads_to(call, additions | units.modules):
            _add(units, found, call, "concatenation of a module", units.present.is_excited_after(call))


def _dense(units: Units, inverted: set[Call], found: dict[Call, Position]) -> None:
    """Adds the new features of dense layers, concatenated with the tensor they were computed from."""
    for call in units.flow.graph.calls:
        if not units.is_concatenation(call) or call in units.modules:
            continue
        own = units.flow.own(call)
        branches = [number for number, calls in enumerate(own) if any(is_learned(one) for one in calls)]
        if len(branches) != 1 or len(own) < 2:
            continue
        calls = own[branches[0]]
        has_convolution = any(isinstance(one.operation, CONVOLUTIONS) for one in calls)
        if not has_convolution or inverted & set(calls) or any(units.enlarges(one) for many in own for one in many):
            continue
        end = units.branch_end(call.inputs[branches[0]])
        if end is not None:
            has_se = units.present.end_in(calls) or units.present.is_excited_after(call)
            _add(units, found, end, f"new features before {call.name}", has_se)


def _plain(units: Units, found: dict[Call, Position]) -> None:
    """Adds convolutions with their normalization and activation."""
    flow = units.flow
    for call in flow.graph.calls:
        is_map = isinstance(call.operation, CONVOLUTIONS) and not flow.is_pooled(call.outputs[0])
        if not is_map or call in units.present.gate_calls:
            continue
        end, has_se, following = units.group_end(call)
        activation = activation_of(end.operation)
        is_group = end is not call or activation != "linear"
        if not is_group or (is_depthwise(call) and following is not None and is_pointwise(following)):
            continue
        if activation in ANSWERS and not flow.is_learned_after(end):
            continue
        reason = "convolution and activation" if end is call else f"convolution {call.name} with what follows it"
        _add(units, found, end, reason, has_se)
