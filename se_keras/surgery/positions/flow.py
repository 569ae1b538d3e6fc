"""The flow of tensors through a graph: producers, consumers, and dependencies."""

from __future__ import annotations

import functools
from typing import Any

import keras

from se_keras.surgery.graph import Call, Graph
from se_keras.surgery.positions.kinds import is_global_pooling, is_learned


class Flow:
    """A graph with queries about its tensors.

    Args:
        graph: The graph, with nested models expanded.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self._consumers = graph.consumers()
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

    def _upstream(self, tensor: Any) -> int:
        """Returns the calls and inputs that a tensor depends on, as bits."""
        call = self.producers.get(id(tensor))
        return self._input_bits.get(id(tensor), 0) if call is None else self._ancestors[call]

    def _calls_of(self, bits: int) -> list[Call]:
        return [call for call in self.graph.calls if bits >> self._number[call] & 1]

    def own(self, call: Call) -> list[list[Call]]:
        """Returns, for each input of a merge, the calls that it depends on but not all other inputs do."""
        upstream = [self._upstream(tensor) for tensor in call.inputs]
        common = functools.reduce(lambda a, b: a & b, upstream)
        return [self._calls_of(bits & ~common) for bits in upstream] if common else [[] for _ in upstream]

    def takers(self, tensor: Any) -> list[Call]:
        """Returns the calls that take a tensor."""
        return [call for call in self._consumers.get(id(tensor), []) if call is not None]

    def only_taker(self, tensor: Any) -> Call | None:
        """Returns the only call that takes a tensor, or None if there are several or none."""
        takers = self.takers(tensor)
        return takers[0] if len(takers) == 1 else None

    def channels(self, tensor: Any) -> int | None:
        """Returns the number of channels of a tensor, or None if it is unknown."""
        return tensor.shape[self.axis(tensor)]

    def axis(self, tensor: Any) -> int:
        """Returns the axis of a tensor's channels, from the nearest preceding layer that has a data format."""
        rank = len(tensor.shape)
        return 1 if rank > 2 and data_format_of(self.producers, tensor) == "channels_first" else rank - 1

    def is_pooled(self, tensor: Any) -> bool:
        """Returns whether a tensor has a single position, left by a global pooling."""
        is_one = sorted(size or 0 for size in tensor.shape[1:])[:-1] == [1] * (len(tensor.shape) - 2)
        return is_one and any(is_global_pooling(call) for call in self._calls_of(self._upstream(tensor)))

    def is_learned_after(self, call: Call) -> bool:
        """Returns whether a layer with kernels depends on a call."""
        bit = 1 << self._number[call]
        return any(is_learned(one) and one is not call and self._ancestors[one] & bit for one in self.graph.calls)


def data_format_of(producers: dict[int, Call], tensor: Any) -> str:
    """Returns the data format of a tensor: that of the nearest preceding layer that has one, else Keras' setting.

    Args:
        producers: The producers of the graph's tensors.
        tensor: A symbolic tensor in the graph.

    Returns:
        "channels_last" or "channels_first".
    """
    seen: set[int] = set()
    pending = [tensor]
    while pending:
        call = producers.get(id(pending.pop(0)))
        if call is None or id(call) in seen:
            continue
        seen.add(id(call))
        if getattr(call.operation, "data_format", None):
            return call.operation.data_format
        pending += call.inputs
    return keras.config.image_data_format()
