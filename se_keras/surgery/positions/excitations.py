"""Squeeze-and-Excitation that a network already has, as layers of this package or built from ordinary ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from se_keras.layers import SqueezeExcite
from se_keras.surgery.graph import Call
from se_keras.surgery.positions.flow import Flow
from se_keras.surgery.positions.kinds import is_global_pooling, is_learned, is_norm_or_activation


class Excitations:
    """The SE blocks in a graph.

    Args:
        flow: The graph.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.maps: dict[Call, Any] = {}  # maps the last call of a block to the tensor that it rescales
        self.gate_calls: set[Call] = set()  # between a map and its gates, in blocks built from ordinary layers
        for call in flow.graph.calls:
            if isinstance(call.operation, SqueezeExcite):
                self.maps[call] = call.inputs[0]
            elif type(call.operation).__name__ == "Multiply" and len(call.inputs) == 2:
                for wide, gate in (call.inputs, call.inputs[::-1]):
                    path = self._gate_path(gate, wide)
                    if path:
                        self.maps[call] = wide
                        self.gate_calls |= set(path)

    def _gate_path(self, gate: Any, wide: Any) -> list[Call]:
        """Returns the calls from a map to its gates, if a global pooling and a projection are among them."""
        path: list[Call] = []
        tensor = gate
        while tensor is not wide:
            call = self.flow.producers.get(id(tensor))
            if call is None or len(call.inputs) != 1:
                return []
            path.append(call)
            tensor = call.inputs[0]
        is_gate = any(is_global_pooling(call) for call in path) and any(is_learned(call) for call in path)
        return path if is_gate else []

    def end_in(self, calls: Iterable[Call]) -> bool:
        """Returns whether an SE block ends in one of the calls."""
        return any(call in self.maps for call in calls)

    def is_excited(self, call: Call) -> bool:
        """Returns whether an SE block takes an output of a call."""
        outputs = {id(tensor) for tensor in call.outputs}
        return any(id(wide) in outputs for wide in self.maps.values())

    def is_excited_after(self, call: Call) -> bool:
        """Returns whether an SE block takes the output of a call, directly or after normalization and activation."""
        while not self.is_excited(call):
            following = self.flow.only_taker(call.outputs[0])
            if following is None or not is_norm_or_activation(following):
                return False
            call = following
        return True

    def end_behind(self, tensor: Any) -> Call | None:
        """Returns the last call of the SE block that takes a tensor, or None."""
        return next((call for call in self.flow.takers(tensor) if self.maps.get(call) is tensor), None)
