"""The flow of a network: the calls that a tensor depends on, and the channels and sizes of its maps."""

from __future__ import annotations

import functools
from typing import Any

import keras

from se_keras.surgery.calls import Call, Graph, channel_axis_of
from se_keras.surgery.excitation import is_global_pooling
from se_keras.surgery.foreign import is_of_others
from se_keras.surgery.layer_facts import is_functional, layers_inside
from se_keras.surgery.layer_types import (
    CONVOLUTIONS,
    ENLARGING,
    PADDINGS,
    SLICING,
    UPSAMPLINGS,
    is_depthwise,
    is_learned,
)


class Flow:
    """Queries about what depends on what in a graph.

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
                bits |= self.upstream(tensor)
            self._ancestors[call] = bits

    # Dependencies.

    def upstream(self, tensor: Any) -> int:
        """Returns the calls and inputs that a tensor depends on, as bits."""
        call = self.graph.producer(tensor)
        return self._input_bits.get(id(tensor), 0) if call is None else self._ancestors[call]

    def _calls_of(self, bits: int) -> list[Call]:
        return [call for call in self.graph.calls if bits >> self._number[call] & 1]

    def branches(self, merge: Call) -> list[list[Call]]:
        """Returns, for each input of a merge, the calls that it depends on but not all other inputs do."""
        upstream = [self.upstream(tensor) for tensor in merge.inputs]
        common = functools.reduce(lambda a, b: a & b, upstream)
        return [self._calls_of(bits & ~common) for bits in upstream] if common else [[] for _ in upstream]

    def entrances(self, merge: Call, number: int) -> set[int]:
        """Returns the ids of the tensors that a branch of a merge starts from, where slices of a map are tensors."""
        calls = [call for call in self.branches(merge)[number] if not self.is_slice(call)]
        made = {id(tensor) for call in calls for tensor in call.outputs}
        return {id(tensor) for call in calls for tensor in call.inputs} - made or {id(merge.inputs[number])}

    def origins(self, tensor: Any) -> set[int]:
        """Returns the ids of a tensor and of those that it was made of without kernels, from one tensor each."""
        found = {id(tensor)}
        call = self.graph.producer(tensor)
        while call is not None and len(call.inputs) == 1 and not is_learned(call.operation):
            found.add(id(call.inputs[0]))
            call = self.graph.producer(call.inputs[0])
        return found

    def depends_on(self, tensor: Any, other: Any) -> bool:
        """Returns whether a tensor is computed from another one."""
        return bool(self.upstream(other)) and self.upstream(other) & ~self.upstream(tensor) == 0

    def only_taker(self, tensor: Any) -> Call | None:
        """Returns the only call that takes a tensor, or None if there are several or none."""
        takers = self.graph.takers(tensor)
        return takers[0] if len(takers) == 1 else None

    def is_pooled(self, tensor: Any) -> bool:
        """Returns whether a tensor has a single position, left by a global pooling."""
        is_one = sorted(size or 0 for size in tensor.shape[1:])[:-1] == [1] * (len(tensor.shape) - 2)
        return is_one and any(is_global_pooling(call) for call in self._calls_of(self.upstream(tensor)))

    def is_learned_after(self, call: Call) -> bool:
        """Returns whether a layer with kernels depends on a call."""
        bit = 1 << self._number[call]
        later = (one for one in self.graph.calls if one is not call and self._ancestors[one] & bit)
        return any(is_learned(one.operation) for one in later)

    def is_learned_before(self, call: Call) -> bool:
        """Returns whether a call depends on a convolution."""
        return any(self.convolves(one) for one in self._calls_of(self.upstream(call.inputs[0])))

    # Layers.

    @functools.cached_property
    def composites(self) -> set[Call]:
        """Returns the calls of foreign layers that hold convolutions and are not expanded."""
        return {call for call in self.graph.calls if _is_composite(call.operation)}

    @property
    def is_inside_a_layer(self) -> bool:
        """Returns whether most of the network is inside one foreign layer, which returns several maps."""
        return any(len(call.outputs) > 1 for call in self.composites)

    def convolves(self, call: Call) -> bool:
        """Returns whether a call is a convolution, or a foreign layer that holds one."""
        return isinstance(call.operation, CONVOLUTIONS) or call in self.composites

    def learns(self, call: Call) -> bool:
        """Returns whether a call has kernels, in its layer or in one inside it."""
        return is_learned(call.operation) or call in self.composites

    def is_depthwise(self, call: Call) -> bool:
        """Returns whether a call with kernels mixes no channels, in its layer or in a foreign one."""
        if call not in self.composites:
            return is_depthwise(call.operation)
        return all(is_depthwise(part) for part in layers_inside(call.operation) if is_learned(part) and part.built)

    # Channels.

    def axis(self, tensor: Any) -> int:
        """Returns the axis of a tensor's channels, from the nearest preceding layer that has a data format."""
        return channel_axis_of(self.graph, tensor)

    def narrows(self, call: Call) -> bool:
        """Returns whether a call returns a known number of channels, fewer than it takes."""
        before, after = (x.shape[self.axis(x)] for x in (call.inputs[0], call.outputs[0]))
        return before is not None and after is not None and after < before

    def is_slice(self, call: Call) -> bool:
        """Returns whether a call only takes some of a map's channels."""
        if type(call.operation).__name__ not in SLICING or len(call.inputs) != 1:
            return False
        before, after = call.inputs[0], call.outputs[0]
        return len(before.shape) == len(after.shape) > 2 and self.narrows(call)

    def enlarges(self, call: Call) -> bool:
        """Returns whether a call at least doubles the height, width, or length of a map."""
        if isinstance(call.operation, UPSAMPLINGS) or type(call.operation).__name__ in ENLARGING:
            return True
        is_padding = isinstance(call.operation, PADDINGS)
        return not is_padding and len(call.inputs) == 1 and any(b >= 2 * a for a, b in self._known_sizes(call))

    def doubles(self, call: Call) -> bool:
        """Returns whether a call at least doubles a map's height, width, or length; not if its size may stay."""
        name = type(call.operation).__name__
        if name in ("Permute", "Reshape", "Transpose") or not self.enlarges(call):
            return False
        sizes = self._known_sizes(call)
        return any(b >= 2 * a for a, b in sizes) or (not sizes and name not in ("Resize", "Resizing"))

    def _known_sizes(self, call: Call) -> list[tuple[int, int]]:
        """Returns the height, width, or length before and after a call that keeps the rank, if both are known."""
        before, after = call.inputs[0], call.outputs[0]
        if len(before.shape) != len(after.shape):
            return []
        axes = [number for number in range(1, len(after.shape)) if number != self.axis(after)]
        pairs = [(before.shape[number], after.shape[number]) for number in axes]
        return [(a, b) for a, b in pairs if a is not None and b is not None]


def _is_composite(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.Layer) or is_functional(layer) or not is_of_others(layer):
        return False
    return not isinstance(layer, CONVOLUTIONS) and any(isinstance(part, CONVOLUTIONS) for part in layers_inside(layer))
