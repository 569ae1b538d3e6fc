"""The structure of a network: what a call depends on, which SE blocks there are, and where units and branches end."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import keras

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Call, Graph, channel_axis_of
from se_keras.surgery.excitation import find_excitations, is_global_pooling
from se_keras.surgery.layer_types import (
    ADDITIONS,
    CONVOLUTIONS,
    ENLARGING,
    PADDINGS,
    UPSAMPLINGS,
    activation_of,
    is_learned,
    is_norm_or_activation,
    is_passing,
    is_pointwise,
)


class Structure:
    """Queries about the tensors of a graph, which existing SE blocks do not hide.

    Args:
        graph: The graph, with nested models expanded.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._number = {call: number for number, call in enumerate(graph.calls)}
        inputs = keras.tree.flatten(graph.inputs)
        self._input_bits = {id(x): 1 << (len(graph.calls) + number) for number, x in enumerate(inputs)}
        # Each set of calls is one integer with one bit per call, which is fast even for a thousand layers.
        self._ancestors: dict[Call, int] = {}
        for call in graph.calls:
            bits = 1 << self._number[call]
            for tensor in call.inputs:
                bits |= self._upstream(tensor)
            self._ancestors[call] = bits
        self._excited: dict[Call, Any] = {}  # maps the last call of an SE block to the tensor that it rescales
        self.gate_calls: set[Call] = set()  # between a map and its gates, in blocks built from ordinary layers
        for one in find_excitations(graph):
            self._excited[one.call] = one.map
            self.gate_calls.update(one.path)

    # Dependencies.

    def _upstream(self, tensor: Any) -> int:
        """Returns the calls and inputs that a tensor depends on, as bits."""
        call = self.graph.producer(tensor)
        return self._input_bits.get(id(tensor), 0) if call is None else self._ancestors[call]

    def _calls_of(self, bits: int) -> list[Call]:
        return [call for call in self.graph.calls if bits >> self._number[call] & 1]

    def branches(self, merge: Call) -> list[list[Call]]:
        """Returns, for each input of a merge, the calls that it depends on but not all other inputs do."""
        upstream = [self._upstream(tensor) for tensor in merge.inputs]
        common = functools.reduce(lambda a, b: a & b, upstream)
        return [self._calls_of(bits & ~common) for bits in upstream] if common else [[] for _ in upstream]

    def only_taker(self, tensor: Any) -> Call | None:
        """Returns the only call that takes a tensor, or None if there are several or none."""
        takers = self.graph.takers(tensor)
        return takers[0] if len(takers) == 1 else None

    def is_pooled(self, tensor: Any) -> bool:
        """Returns whether a tensor has a single position, left by a global pooling."""
        is_one = sorted(size or 0 for size in tensor.shape[1:])[:-1] == [1] * (len(tensor.shape) - 2)
        return is_one and any(is_global_pooling(call) for call in self._calls_of(self._upstream(tensor)))

    def is_learned_after(self, call: Call) -> bool:
        """Returns whether a layer with kernels depends on a call."""
        bit = 1 << self._number[call]
        later = (one for one in self.graph.calls if one is not call and self._ancestors[one] & bit)
        return any(is_learned(one.operation) for one in later)

    # Channels.

    def axis(self, tensor: Any) -> int:
        """Returns the axis of a tensor's channels, from the nearest preceding layer that has a data format."""
        return channel_axis_of(self.graph, tensor)

    def narrows(self, call: Call) -> bool:
        """Returns whether a call returns a known number of channels, fewer than it takes."""
        before, after = (x.shape[self.axis(x)] for x in (call.inputs[0], call.outputs[0]))
        return before is not None and after is not None and after < before

    def enlarges(self, call: Call) -> bool:
        """Returns whether a call at least doubles the height, width, or length of a map."""
        if isinstance(call.operation, UPSAMPLINGS) or type(call.operation).__name__ in ENLARGING:
            return True
        if len(call.inputs) != 1 or len(call.inputs[0].shape) != len(call.outputs[0].shape):
            return False
        axis = self.axis(call.outputs[0])
        sizes = list(zip(call.inputs[0].shape, call.outputs[0].shape, strict=True))
        pairs = [sizes[number] for number in range(1, len(sizes)) if number != axis]
        is_padding = isinstance(call.operation, PADDINGS)
        return not is_padding and any(a is not None and b is not None and b >= 2 * a for a, b in pairs)

    # SE blocks, as layers of this package or built from ordinary ones.

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
            elif not isinstance(following.operation, PADDINGS) and not is_passing(following.operation):
                return end, has_se, following
            last = following

    def is_linear(self, call: Call) -> bool:
        """Returns whether no activation follows a convolution and its normalization."""
        end, _, _ = self.group_end(call)
        return activation_of(end.operation) == "linear"

    def branch_end(self, tensor: Any) -> Call | None:
        """Returns the call that ends a branch, before layers that only drop or scale; None for a model input."""
        call = self.graph.producer(tensor)
        while call is not None and len(call.inputs) == 1 and is_passing(call.operation):
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

    # Merges.

    def is_addition(self, call: Call) -> bool:
        """Returns whether a call adds maps of the same size."""
        return type(call.operation).__name__ in ADDITIONS and _merges_maps(call)

    def is_concatenation(self, call: Call) -> bool:
        """Returns whether a call concatenates the channels of maps."""
        if type(call.operation).__name__ != "Concatenate" or not _merges_maps(call):
            return False
        return call.operation.axis % len(call.outputs[0].shape) == self.axis(call.outputs[0])

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


def _merges_maps(call: Call) -> bool:
    ranks = {len(tensor.shape) for tensor in call.inputs}
    return len(call.inputs) > 1 and ranks <= {3, 4, 5} and len(ranks) == 1


def _sees_neighbors(call: Call) -> bool:
    rank = len(call.inputs[0].shape) if call.inputs else 0
    return isinstance(call.operation, CONVOLUTIONS) and not is_pointwise(call.operation, rank)
