"""Functional models as lists of calls that can be rewritten."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.surgery.held import holds_state
from se_keras.surgery.layer_types import why_weights_are_fixed

TRANSPOSING = ("Moveaxis", "Permute", "Swapaxes", "Transpose")


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A call of a layer or operation.

    Args:
        operation: The layer or operation; it is shared if it occurs in several calls.
        args: Positional arguments, which contain symbolic tensors.
        kwargs: Keyword arguments, likewise.
        outputs: The symbolic tensors that the call returned.
        is_new: Whether the layer was made for this graph and need not be copied (see `needs_no_copy`).
        node: Keras' node of the call, shared by all copies of the call that the expansion of nested
            models makes; None for a call made here.
        path: The name of the layer; "model/layer" inside a nested model.
        has_mask: Whether the outputs come with a mask.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Any, ...]
    is_new: bool = False
    node: Any = None
    path: str = ""
    has_mask: bool = False

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Returns the symbolic tensors among the arguments."""
        return tuple(x for x in keras.tree.flatten((self.args, dict(self.kwargs))) if keras.backend.is_keras_tensor(x))

    @property
    def name(self) -> str:
        """Returns the name of the layer or operation."""
        return self.operation.name

    @property
    def always_trains(self) -> bool:
        """Returns whether `training=True` in the call keeps the layer in training mode at inference."""
        return bool(self.kwargs.get("training")) and recorded_training_holds()

    def of(self, operation: Any) -> Call:
        """Returns the same call with another operation, which was made for this graph."""
        return dataclasses.replace(self, operation=operation, is_new=needs_no_copy(operation))


def needs_no_copy(operation: Any) -> bool:
    """Returns whether a layer made for a graph shares nothing with the model, such as an activation with weights."""
    return not holds_state(getattr(operation, "activation", None))


@dataclasses.dataclass(frozen=True)
class Graph:
    """A functional model as calls in an order in which they can run.

    Args:
        inputs: The model's inputs, in their original structure.
        outputs: Its outputs, likewise.
        calls: The calls. Rewriting makes a new graph with different calls.
        name: The model's name.
    """

    inputs: Any
    outputs: Any
    calls: tuple[Call, ...]
    name: str

    def used(self) -> Graph:
        """Returns the graph without the calls that no output of the model depends on."""
        needed = {id(tensor) for tensor in keras.tree.flatten(self.outputs)}
        calls = []
        for call in reversed(self.calls):
            if any(id(tensor) in needed for tensor in call.outputs):
                calls.append(call)
                needed.update(id(tensor) for tensor in call.inputs)
        return dataclasses.replace(self, calls=tuple(calls[::-1]))

    @functools.cached_property
    def _producers(self) -> dict[int, Call]:
        return {id(tensor): call for call in self.calls for tensor in call.outputs}

    @functools.cached_property
    def _takers(self) -> dict[int, list[Call | None]]:
        """Maps the id of a tensor to the calls that take it; None stands for an output of the model."""
        found: dict[int, list[Call | None]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                found.setdefault(id(tensor), []).append(call)
        for tensor in keras.tree.flatten(self.outputs):
            found.setdefault(id(tensor), []).append(None)
        return found

    @functools.cached_property
    def _counts(self) -> Mapping[int, int]:
        return collections.Counter(id(call.operation) for call in self.calls)

    def times_called(self, operation: Any) -> int:
        """Returns the number of calls of an operation."""
        return self._counts[id(operation)]

    def producer(self, tensor: Any) -> Call | None:
        """Returns the call that returns a tensor, or None for an input of the model."""
        return self._producers.get(id(tensor))

    def takers(self, tensor: Any) -> list[Call]:
        """Returns the calls that take a tensor."""
        return [call for call in self._takers.get(id(tensor), ()) if call is not None]

    def sole_producer(self, tensor: Any) -> Call | str:
        """Returns the call that returns a tensor if only one call takes the tensor; otherwise the reason why not."""
        call = self.producer(tensor)
        if call is None:
            return "it follows the model's input"
        return call if len(self._takers[id(tensor)]) == 1 else f"the output of {call.name!r} is also used elsewhere"

    def is_only_taken_by(self, tensor: Any, calls: Collection[Call]) -> bool:
        """Returns whether only some given calls take a tensor, and it is no output of the model."""
        return all(taker in calls for taker in self._takers.get(id(tensor), ()))

    def sole_taker(self, tensor: Any) -> Call | None:
        """Returns the call that takes a tensor if there is no other, and it is no output of the model; else None."""
        takers = self._takers.get(id(tensor), ())
        return takers[0] if len(takers) == 1 else None

    def why_fixed(self, call: Call) -> str:
        """Returns the reason why the weights of a call's layer cannot be changed for this call, or ""."""
        if self.times_called(call.operation) > 1:
            return f"{call.name!r} is shared by several calls"
        return why_weights_are_fixed(call.operation)

    @functools.cached_property
    def _masked(self) -> set[int]:
        """Returns the ids of the tensors that may come with a mask."""
        found: set[int] = set()
        for call in self.calls:
            passes_on = getattr(call.operation, "supports_masking", False) and any(id(x) in found for x in call.inputs)
            if call.has_mask or passes_on:
                found.update(id(x) for x in call.outputs)
        return found

    def is_masked(self, tensor: Any) -> bool:
        """Returns whether a tensor may come with a mask."""
        return id(tensor) in self._masked

    def takes_mask(self, call: Call) -> bool:
        """Returns whether a call may get a mask."""
        return call.kwargs.get("mask") is not None or self.is_masked(call.inputs[0])

    def rewritten(self, replacements: Mapping[Call, Sequence[Call]], aliases: Mapping[int, Any]) -> Graph:
        """Returns the graph with some calls replaced.

        Args:
            replacements: Maps a call to its replacements, possibly none.
            aliases: Maps the id of a tensor that no call returns any longer to its replacement.

        Returns:
            A new graph.
        """

        def renamed(x: Any) -> Any:
            while id(x) in aliases:
                x = aliases[id(x)]
            return x

        def mapped(structure: Any) -> Any:
            return keras.tree.map_structure(renamed, structure)

        calls = [
            dataclasses.replace(new, args=mapped(new.args), kwargs=mapped(dict(new.kwargs)))
            for call in self.calls
            for new in replacements.get(call, (call,))
        ]
        return Graph(self.inputs, mapped(self.outputs), tuple(calls), self.name)


def data_format_of(graph: Graph, tensor: Any) -> str:
    """Returns the data format of a tensor, as `channel_axis_of` finds it.

    Args:
        graph: The graph.
        tensor: A symbolic tensor in the graph, of rank 3 or more.

    Returns:
        "channels_last" or "channels_first".

    Raises:
        ValueError: The channels are neither the first nor the last axis after the batch.
    """
    axis, rank = channel_axis_of(graph, tensor), len(tensor.shape)
    if 1 < axis < rank - 1:
        raise ValueError(
            f"Channels must be the first or the last axis after the batch; in the map of shape {tuple(tensor.shape)}, "
            f"they are axis {axis}. Choose a place before or after the transposition."
        )
    return "channels_first" if axis == 1 else "channels_last"


def channel_axis_of(graph: Graph, tensor: Any) -> int:
    """Returns the axis of a tensor's channels.

    Args:
        graph: The graph.
        tensor: A symbolic tensor in the graph.

    Returns:
        The axis according to the nearest preceding layer that has a data format, else to Keras' setting, after all
        transpositions on the way.
    """
    rank = len(tensor.shape)
    if rank <= 2:
        return rank - 1
    seen: set[int] = set()
    pending = [(tensor, tuple(range(rank)))]  # with the axis of the earlier tensor for each axis of this one
    order, found = pending[0][1], None
    while pending:
        earlier, order = pending.pop(0)
        call = graph.producer(earlier)
        if call is None or id(call) in seen:
            continue
        seen.add(id(call))
        found = getattr(call.operation, "data_format", None)
        if found:
            break
        pending += [(one, _order_before(call, one, order)) for one in call.inputs]
    channels = 1 if (found or keras.config.image_data_format()) == "channels_first" else rank - 1
    return order.index(channels)


def _order_before(call: Call, tensor: Any, order: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the axes of an input of a call that become those of `order` in its output."""
    rank, operation = len(order), call.operation
    is_known = isinstance(operation, keras.layers.Permute) or not isinstance(operation, keras.layers.Layer)
    if not is_known or type(operation).__name__ not in TRANSPOSING or len(tensor.shape) != rank:
        return order
    sizes = range(2, rank + 2)  # all different, so that the result tells where each axis went
    shape = call.operation.compute_output_spec(keras.KerasTensor(tuple(sizes))).shape
    return tuple(sizes.index(shape[axis]) for axis in order)


@functools.cache
def recorded_training_holds() -> bool:
    """Returns whether a layer called with `training=True` also trains at inference, as in Keras 3.16 and later."""
    # Explicit names leave the automatic names of the user's layers as they would be without this.
    inputs = keras.Input((1,), dtype="float32", name="probe")
    norm = keras.layers.BatchNormalization(dtype="float32", name="probe_norm")
    model = keras.Model(inputs, norm(inputs, training=True), name="probe_model")
    answers = keras.ops.convert_to_numpy(model(np.array([[0.0], [2.0]], "float32"), training=False))
    return bool(answers[0, 0] < -0.5)  # -1 and 1 with the batch's own statistics
