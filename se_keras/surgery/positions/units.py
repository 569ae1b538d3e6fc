"""The units of networks: convolutions with their normalization and activation, branches, and merges."""

from __future__ import annotations

import functools
from typing import Any

from se_keras.surgery.fold import PADDINGS
from se_keras.surgery.graph import Call
from se_keras.surgery.positions.excitations import Excitations
from se_keras.surgery.positions.flow import Flow
from se_keras.surgery.positions.kinds import (
    ADDITIONS,
    CONVOLUTIONS,
    UPSAMPLINGS,
    activation_of,
    is_norm_or_activation,
    is_passing,
    is_pointwise,
)


class Units:
    """The units in a graph, which existing SE blocks do not hide.

    Args:
        flow: The graph.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.present = Excitations(flow)

    def _following(self, call: Call) -> tuple[Call | None, bool]:
        """Returns the only call after a call, or None, and whether it is the end of an SE block around it."""
        gate = self.present.end_behind(call.outputs[0])
        return gate or self.flow.only_taker(call.outputs[0]), gate is not None

    def group_end(self, call: Call) -> tuple[Call, bool, Call | None]:
        """Returns the last call of a convolution, normalization, and activation; whether SE follows; and the next."""
        has_se = False
        end = last = call
        while True:
            following, is_gate = self._following(last)
            if following is None:
                return end, has_se, None
            if is_gate:
                has_se = True
            elif isinstance(following.operation, PADDINGS) or is_passing(following):
                pass
            elif is_norm_or_activation(following) and not has_se:
                end = following
            else:
                return end, has_se, following
            last = following

    def is_linear(self, call: Call) -> bool:
        """Returns whether no activation follows a convolution and its normalization."""
        end, _, _ = self.group_end(call)
        return activation_of(end.operation) == "linear"

    def branch_end(self, tensor: Any) -> Call | None:
        """Returns the call that ends a branch, before layers that only drop or scale; None for a model input."""
        call = self.flow.producers.get(id(tensor))
        while call is not None and len(call.inputs) == 1 and is_passing(call):
            before = self.flow.producers.get(id(call.inputs[0]))
            if before is None or self.flow.only_taker(call.inputs[0]) is None:
                break
            call = before
        return call

    def enlarges(self, call: Call) -> bool:
        """Returns whether a call at least doubles the height, width, or length of a map."""
        if isinstance(call.operation, UPSAMPLINGS) or type(call.operation).__name__ in ("Resize", "DepthToSpace"):
            return True
        if len(call.inputs) != 1 or len(call.inputs[0].shape) != len(call.outputs[0].shape):
            return False
        before, after = call.inputs[0].shape[1:], call.outputs[0].shape[1:]
        axis = self.flow.axis(call.outputs[0]) - 1
        pairs = [pair for number, pair in enumerate(zip(before, after, strict=True)) if number != axis]
        is_padding = isinstance(call.operation, PADDINGS)
        return not is_padding and any(a is not None and b is not None and b >= 2 * a for a, b in pairs)

    def is_addition(self, call: Call) -> bool:
        """Returns whether a call adds maps of the same size."""
        return type(call.operation).__name__ in ADDITIONS and _merges_maps(call)

    def is_concatenation(self, call: Call) -> bool:
        """Returns whether a call concatenates the channels of maps."""
        if type(call.operation).__name__ != "Concatenate" or not _merges_maps(call):
            return False
        rank = len(call.outputs[0].shape)
        return call.operation.axis % rank == self.flow.axis(call.outputs[0])

    @functools.cached_property
    def modules(self) -> set[Call]:
        """Returns concatenations of at least two branches with their own convolutions, not all of them pointwise."""
        return {
            call
            for call in self.flow.graph.calls
            if self.is_concatenation(call)
            and sum(self._has_own_convolution(x) for x in call.inputs) > 1
            and any(_sees_neighbors(one) for calls in self.flow.own(call) for one in calls)
        }

    def _has_own_convolution(self, tensor: Any) -> bool:
        """Returns whether a convolution leads to a tensor through calls whose outputs nothing else takes."""
        call = self.flow.producers.get(id(tensor))
        if call is None or self.enlarges(call):
            return False
        if call in self.present.maps:
            source = self.flow.producers.get(id(self.present.maps[call]))
            return source is not None and self._makes_map(source)
        return len(self.flow.takers(tensor)) == 1 and self._makes_map(call)

    def _makes_map(self, call: Call) -> bool:
        return isinstance(call.operation, CONVOLUTIONS) or any(self._has_own_convolution(x) for x in call.inputs)

    def feeds_module(self, call: Call) -> bool:
        """Returns whether a module takes the output of a call, directly or after normalization and activation."""
        pending = [call]
        while pending:
            for taker in self.flow.takers(pending.pop().outputs[0]):
                if taker in self.modules:
                    return True
                if is_norm_or_activation(taker):
                    pending.append(taker)
        return False

    def leads_to(self, call: Call, ends: set[Call]) -> bool:
        """Returns whether a call's output leads, through single calls only, to one of `ends`."""
        while True:
            following, is_gate = self._following(call)
            if following is None or following in ends:
                return following is not None
            if not is_gate and len(following.inputs) != 1:
                return False
            call = following


def _merges_maps(call: Call) -> bool:
    ranks = {len(tensor.shape) for tensor in call.inputs}
    return len(call.inputs) > 1 and ranks <= {3, 4, 5} and len(ranks) == 1


def _sees_neighbors(call: Call) -> bool:
    return isinstance(call.operation, CONVOLUTIONS) and not is_pointwise(call)
