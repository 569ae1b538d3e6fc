"""The structure of a network: which SE blocks and other gates there are, and where units and branches end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.excitation import find_excitations, is_global_pooling
from se_keras.surgery.foreign import opened
from se_keras.surgery.hidden import find_hidden
from se_keras.surgery.layer_types import (
    ADDITIONS,
    CONVOLUTIONS,
    PADDINGS,
    activation_of,
    is_depthwise,
    is_norm_or_activation,
    is_passing,
    is_pointwise,
)
from se_keras.surgery.positions.flow import Flow
from se_keras.surgery.positions.gates import calls_of_gates, find_gates


class Structure(Flow):
    """Queries about the tensors of a graph, which existing SE blocks do not hide.

    Calls that no output depends on are not in it, and foreign layers that hold SE blocks are
    replaced by what they compute.

    Args:
        graph: The graph, with nested models expanded.
    """

    def __init__(self, graph: Graph) -> None:
        used = graph.used()
        inside = opened(used)
        super().__init__(inside.graph)
        self.hidden = find_hidden(used, inside)
        self._excited: dict[Call, Any] = {}  # maps the last call of an SE block to the tensor that it rescales
        self.gate_calls: set[Call] = set()  # between a map and its gates, per channel or per position
        for one in find_excitations(self.graph):
            self._excited[one.call] = one.map
            self.gate_calls.update(one.path)
        unread = {id(layer) for layer in inside.unread}
        self.holders = {*inside.counts, *unread}  # ids of the foreign layers that hold SE blocks
        for call in self.graph.calls:
            if id(call.operation) in unread and call.inputs[0].shape == call.outputs[0].shape:
                self._excited[call] = call.inputs[0]
        self._gated = find_gates(self.graph)
        for product, gates in self._gated.items():
            self.gate_calls |= calls_of_gates(self.graph, product, gates)

    # Gates, of SE blocks and of others.

    def gated_end(self, call: Call) -> Call:
        """Returns the last call of those that take all channels, some, or their product with gates."""
        end = call
        while True:
            tensor = call.outputs[0]
            takers = [one for one in self.graph.takers(tensor) if one not in self.gate_calls]
            if len(takers) != 1 or takers[0] in self._excited:
                return end
            call = takers[0]
            is_product = call in self._gated and self._gated[call] is not tensor
            if not is_product and not self.is_slice(call) and not _is_whole(call):
                return end
            end = end if _is_whole(call) else call

    # SE blocks, as layers of this package or of others, or built from ordinary ones.

    def has_block_end(self, calls: Iterable[Call]) -> bool:
        """Returns whether an SE block ends in one of the calls."""
        return any(call in self._excited for call in calls)

    def is_excited(self, call: Call) -> bool:
        """Returns whether an SE block takes an output of a call, or is the call itself."""
        outputs = {id(tensor) for tensor in call.outputs}
        is_block = isinstance(call.operation, SqueezeExcite)
        return is_block or any(id(wide) in outputs for wide in self._excited.values())

    def is_excited_after(self, call: Call) -> bool:
        """Returns whether an SE block takes the output of a call, directly or after normalization and activation."""
        while not self.is_excited(call):
            following = self.only_taker(call.outputs[0])
            if following is None or not _is_norm_or_activation(following):
                return False
            call = following
        return True

    def is_excited_before(self, call: Call) -> bool:
        """Returns whether a call takes the product of an SE block on the output of a depthwise convolution."""
        product = self.graph.producer(call.inputs[0])
        if product is None or product not in self._excited:
            return False
        before = self.graph.producer(self._excited[product])
        while before is not None and _is_norm_or_activation(before):
            before = self.graph.producer(before.inputs[0])
        return before is not None and is_depthwise(before.operation)

    # Units and branches.

    def _following(self, call: Call) -> tuple[Call | None, bool]:
        """Returns the only call after a call, or None, and whether it is the end of an SE block around it."""
        tensor = call.outputs[0]
        gate = next((taker for taker in self.graph.takers(tensor) if self._excited.get(taker) is tensor), None)
        return gate or self.only_taker(tensor), gate is not None

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
            elif _is_norm_or_activation(following) and not has_se:
                end = following
            elif not _passes(following):
                return end, has_se, following
            last = following

    def is_linear(self, call: Call) -> bool:
        """Returns whether no activation follows a convolution and its normalization."""
        end, _, _ = self.group_end(call)
        return activation_of(end.operation) == "linear"

    def branch_end(self, tensor: Any) -> Call | None:
        """Returns the call that ends a branch, before layers that only drop or scale; None for a model input."""
        call = self.graph.producer(tensor)
        while call is not None and len(call.inputs) == 1 and (is_passing(call.operation) or _is_whole(call)):
            before = self.graph.producer(call.inputs[0])
            if before is None or self.only_taker(call.inputs[0]) is None:
                break
            call = before
        return call

    def leads_to(self, call: Call, ends: set[Call]) -> bool:
        """Returns whether a call's output leads, through single calls only, to one of `ends`."""
        while True:
            following, is_gate = self._following(call)
            if following is None or following in ends:
                return following is not None
            if not is_gate and len(following.inputs) != 1:
                return False
            call = following

    def stage_end(self, call: Call, ends: Callable[[Call], Call | None]) -> tuple[Call | None, bool]:
        """Returns the last unit between a call and the next that enlarges the map, and whether SE follows it.

        Args:
            call: The call that enlarges the map.
            ends: Returns the last call of the unit that a call begins, or None if it begins none.
        """
        end, has_se = ends(call), False
        call = end or call
        while True:
            takers = [one for one in self.graph.takers(call.outputs[0]) if one not in self.gate_calls]
            if len(takers) != 1 or self.enlarges(takers[0]) or is_global_pooling(takers[0]):
                return end, has_se
            call = takers[0]
            has_se = has_se or call in self._excited
            if (unit := ends(call)) is not None:
                call, end, has_se = unit, unit, False

    # Merges.

    def is_addition(self, call: Call) -> bool:
        """Returns whether a call adds maps of the same size."""
        return type(call.operation).__name__ in ADDITIONS and _merges_maps(call)

    def is_concatenation(self, call: Call) -> bool:
        """Returns whether a call concatenates the channels of maps."""
        if type(call.operation).__name__ != "Concatenate" or not _merges_maps(call):
            return False
        return call.operation.axis % len(call.outputs[0].shape) == self.axis(call.outputs[0])

    def is_ghost(self, call: Call) -> bool:
        """Returns whether a call concatenates a map with features that a depthwise convolution computes from it."""
        if not self.is_concatenation(call) or len(call.inputs) != 2:
            return False
        learned = [[one for one in calls if self.learns(one)] for calls in self.branches(call)]
        number = 0 if learned[0] else 1
        is_cheap = bool(learned[number]) and all(map(self.is_depthwise, learned[number]))
        return is_cheap and not learned[1 - number] and self.entrances(call, number) == {id(call.inputs[1 - number])}

    def is_chain(self, call: Call) -> bool:
        """Returns whether a call concatenates three maps or more, each computed from the one before it."""
        if not self.is_concatenation(call) or len(call.inputs) < 3:
            return False
        pairs = list(zip(call.inputs, call.inputs[1:], strict=False))
        return all(
            self.depends_on(after, before) and len(self.graph.takers(after)) <= 2 and before is not after
            for before, after in pairs
        )

    @functools.cached_property
    def modules(self) -> set[Call]:
        """Returns concatenations of at least two branches with their own convolutions, not all of them pointwise."""
        return {
            call
            for call in self.graph.calls
            if self.is_concatenation(call)
            and sum(self._has_own_convolution(x) for x in call.inputs) > 1
            and any(_sees_neighbors(one) for calls in self.branches(call) for one in calls)
        }

    def _has_own_convolution(self, tensor: Any) -> bool:
        """Returns whether a convolution leads to a tensor through calls whose outputs nothing else takes."""
        call = self.graph.producer(tensor)
        if call is None or self.enlarges(call):
            return False
        if call in self._excited:
            source = self.graph.producer(self._excited[call])
            return source is not None and self._makes_map(source)
        return len(self.graph.takers(tensor)) == 1 and self._makes_map(call)

    def _makes_map(self, call: Call) -> bool:
        return isinstance(call.operation, CONVOLUTIONS) or any(self._has_own_convolution(x) for x in call.inputs)

    def feeds_module(self, call: Call) -> bool:
        """Returns whether a module takes the output of a call, directly or after normalization and activation."""
        takers = self.graph.takers(call.outputs[0])
        return any(
            taker in self.modules or (_is_norm_or_activation(taker) and self.feeds_module(taker)) for taker in takers
        )


def _is_norm_or_activation(call: Call) -> bool:
    return len(call.inputs) == 1 and is_norm_or_activation(call.operation)


def _is_whole(call: Call) -> bool:
    """Returns whether a call indexes a map and takes all of it."""
    return type(call.operation).__name__ == "GetItem" and call.inputs[0].shape == call.outputs[0].shape


def _passes(call: Call) -> bool:
    return isinstance(call.operation, PADDINGS) or is_passing(call.operation) or _is_whole(call)


def _merges_maps(call: Call) -> bool:
    ranks = {len(tensor.shape) for tensor in call.inputs}
    return len(call.inputs) > 1 and ranks <= {3, 4, 5} and len(ranks) == 1


def _sees_neighbors(call: Call) -> bool:
    rank = len(call.inputs[0].shape) if call.inputs else 0
    return isinstance(call.operation, CONVOLUTIONS) and not is_pointwise(call.operation, rank)
