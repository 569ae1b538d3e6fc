"""Excitations: the SE blocks of a graph, whether layers of this package, other layers, or calls of `keras.ops`."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import numbers
import operator
import re
from collections.abc import Collection, Iterator
from typing import Any

import keras

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Call, Graph, channel_axis_of
from se_keras.surgery.layer_types import activation_of, is_learned, is_pointwise

# By class name, because layers and operations share it: the first change the shape of gates, not their values; the
# second repeat gates at every position before the product.
RESHAPING = ("Cast", "Dropout", "ExpandDims", "Flatten", "GetItem", "Identity", "Permute", "Reshape", "Squeeze")
REPEATING = ("BroadcastTo", "Repeat", "RepeatVector", "Tile", "UpSampling1D", "UpSampling2D", "UpSampling3D")
# The lowest and highest value of activations.
RANGES = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu6": (0.0, 6.0),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Excitation:
    """An SE block in a graph: a map, gates computed from its squeeze, and their product.

    Args:
        call: The call that returns the product: that of a `SqueezeExcite` layer, or a multiplication.
        map: The tensor that the gates multiply.
        source: The tensor that is squeezed: the map, or the input of the 1x1 convolution that
            returns the map if the squeeze was hoisted.
        axis: The axis of the map's channels.
        gate: The tensor of the gates, (batch, channels) with any axes of size 1; None in a
            `SqueezeExcite` layer, which computes it inside.
        path: The calls from the source to the product's factor, in the order of the graph; none in
            a `SqueezeExcite` layer.
        limits: The lowest and highest possible gate; None if the activation does not determine them.
        name: The block's name: that of the layer, or what the names of its layers have in common.
    """

    call: Call
    map: Any
    source: Any
    axis: int
    gate: Any = None
    path: tuple[Call, ...] = ()
    limits: tuple[float, float] | None = None
    name: str = ""

    @property
    def block(self) -> SqueezeExcite | None:
        """Returns the layer of this package, or None for a block of other layers."""
        return self.call.operation if self.gate is None else None

    @property
    def is_readable(self) -> bool:
        """Returns whether the gates can be read: a subclass of `SqueezeExcite` may compute others."""
        return self.block is None or type(self.block) is SqueezeExcite

    @property
    def scale(self) -> float:
        """Returns the factor of the gates after their activation."""
        return 1.0 if self.block is None else self.block.gate_scale

    @property
    def channels(self) -> int:
        """Returns the number of gates."""
        return self.map.shape[self.axis]


def find_excitations(graph: Graph) -> tuple[Excitation, ...]:
    """Finds the SE blocks of a graph.

    A block of other layers is a product of a map and gates, where the gates have one number per
    channel, depend on nothing but the map, and reach it only through a global pooling, with at
    least one projection.

    Args:
        graph: The graph, with nested models expanded.

    Returns:
        The blocks, in the order of the graph.
    """
    found = [one for call in graph.calls if (one := _excitation(graph, call)) is not None]
    return tuple(_named(found))


def _excitation(graph: Graph, call: Call) -> Excitation | None:
    if isinstance(call.operation, SqueezeExcite):
        return _own(call)
    if type(call.operation).__name__ != "Multiply" or len(call.inputs) != 2:
        return None
    pairs = (call.inputs, call.inputs[::-1])
    return next((one for wide, factor in pairs if (one := _of_layers(graph, call, wide, factor))), None)


def _own(call: Call) -> Excitation:
    block, wide = call.operation, call.inputs[0]
    axis = 1 if block.data_format == "channels_first" else len(wide.shape) - 1
    limits = None
    if block.gate_activation in (keras.activations.sigmoid, keras.activations.hard_sigmoid):
        limits = (0.0, float(block.gate_scale))
    elif block.gate_activation is keras.activations.tanh:
        limits = (-1.0, 1.0)
    return Excitation(call, wide, wide, axis, limits=limits, name=block.name)


def _of_layers(graph: Graph, call: Call, wide: Any, factor: Any) -> Excitation | None:
    if len(wide.shape) not in (3, 4, 5):
        return None
    axis, gate = channel_axis_of(graph, wide), _unrepeated(graph, factor)
    if not _is_per_channel(gate, wide, axis):
        return None
    for source in _sources(graph, wide):
        path = _path(graph, factor, source)
        if path and graph.producer(wide) not in path:
            return Excitation(call, wide, source, axis, gate, path, _range(graph, gate))
    return None


def _unrepeated(graph: Graph, tensor: Any) -> Any:
    """Returns the gates that a tensor repeats at every position, or the tensor itself."""
    call = graph.producer(tensor)
    while call is not None and len(call.inputs) == 1 and type(call.operation).__name__ in REPEATING:
        tensor = call.inputs[0]
        call = graph.producer(tensor)
    return tensor


def _is_per_channel(gate: Any, wide: Any, axis: int) -> bool:
    """Returns whether a tensor has one number per image and per channel of a map."""
    channels = wide.shape[axis]
    if len(gate.shape) == len(wide.shape) and gate.shape[axis] != channels:
        return False
    return channels is not None and [size for size in gate.shape[1:] if size != 1] == [channels] * (channels != 1)


def _sources(graph: Graph, wide: Any) -> Iterator[Any]:
    """Yields the tensors that the squeeze of a map may read: the map, or the input of a 1x1 convolution before it."""
    yield wide
    before = graph.producer(wide)
    if before is not None and is_pointwise(before.operation, len(wide.shape)):
        yield before.inputs[0]


def _path(graph: Graph, factor: Any, source: Any) -> tuple[Call, ...]:
    """Returns the calls from a map to its gates, if every path has a global pooling, and one of them has kernels."""
    path = _between(graph, factor, {id(source)})
    if not path or not any(is_learned(call.operation) for call in path):
        return ()
    squeezes = {id(x) for call in path if is_global_pooling(call) for x in call.outputs}
    return path if squeezes and _between(graph, factor, squeezes) is not None else ()


def _between(graph: Graph, end: Any, starts: Collection[int]) -> tuple[Call, ...] | None:
    """Returns the calls that a tensor depends on, back to tensors given by id; None if it depends on anything else."""
    found: set[Call] = set()
    pending = [end]
    while pending:
        tensor = pending.pop()
        if id(tensor) in starts:
            continue
        call = graph.producer(tensor)
        if call is None or isinstance(call.operation, SqueezeExcite):
            return None
        if call not in found:
            found.add(call)
            pending += call.inputs
    return tuple(call for call in graph.calls if call in found)


def is_global_pooling(call: Call) -> bool:
    """Returns whether a call reduces a map to one number per channel."""
    name = type(call.operation).__name__
    if name.startswith("Global") and "Pooling" in name:
        return True
    if len(call.inputs) != 1 or len(call.inputs[0].shape) < 3 or call.inputs[0].shape == call.outputs[0].shape:
        return False
    is_one = [size for size in call.outputs[0].shape[1:] if size != 1]
    return name in ("Mean", "Max") or ("Pool" in name and len(is_one) < 2)


def _range(graph: Graph, tensor: Any) -> tuple[float, float] | None:
    """Returns the lowest and highest possible value of a tensor; None if its last operations do not determine them."""
    call = graph.producer(tensor)
    if call is None or len(call.inputs) != 1:
        return None
    operation, kind = call.operation, type(call.operation).__name__
    if isinstance(operation, keras.layers.ReLU):
        is_plain = not operation.negative_slope and not operation.threshold and operation.max_value is not None
        return (0.0, float(operation.max_value)) if is_plain else None
    if kind not in (*RESHAPING, *_AFFINE, "Rescaling"):
        return RANGES.get(activation_of(operation))
    ends = _range(graph, call.inputs[0])
    if ends is None or kind in RESHAPING:
        return ends
    found = [result for end in ends if (result := _affine(call, end)) is not None]
    return (min(found), max(found)) if found else None


_AFFINE = {
    "Add": operator.add,
    "Subtract": operator.sub,
    "Multiply": operator.mul,
    "Divide": operator.truediv,
    "TrueDivide": operator.truediv,
}


def _affine(call: Call, value: float) -> float | None:
    """Returns the result of a rescaling, or of an operation with a number, for a value; None if it is unknown."""
    kind = type(call.operation).__name__
    if kind == "Rescaling":
        given: list[Any] = [call.operation.scale, call.operation.offset]
        return value * given[0] + given[1] if all(isinstance(one, numbers.Real) for one in given) else None
    given = [*call.args, *call.kwargs.values()]
    are_numbers = [isinstance(one, numbers.Real) for one in given]
    if sorted(are_numbers) != [False, True]:
        return None
    if "Divide" in kind and (are_numbers[0] or given[1] == 0):  # a number over gates does not grow with them everywhere
        return None
    first, second = (one if is_number else value for one, is_number in zip(given, are_numbers, strict=True))
    return _AFFINE[kind](first, second)


def _named(found: Collection[Excitation]) -> Iterator[Excitation]:
    """Yields excitations, named by what their layers' names share if that is unique, else by the product's name."""
    names = [one.name or _common_name(one) for one in found]
    owners = collections.defaultdict(set)
    for one, name in zip(found, names, strict=True):
        owners[name].add(id(one.call.operation))
    for one, name in zip(found, names, strict=True):
        is_unique = name and (len(owners[name]) == 1 or one.block is not None)
        yield dataclasses.replace(one, name=name if is_unique else one.call.name)


def _common_name(one: Excitation) -> str:
    """Returns the beginning that the names of a block's layers share, without names that Keras made; "" for none."""
    names = [call.name for call in (*one.path, one.call) if not _is_automatic(call)]
    if len(names) < 2:
        return "" if not _is_automatic(one.call) or not names else names[0]
    words = zip(*(re.split(r"(?<=[_/.-])", f"{name}_") for name in names), strict=False)
    shared = itertools.takewhile(lambda same: len(set(same)) == 1, words)
    return "".join(same[0] for same in shared)[:-1]


def _is_automatic(call: Call) -> bool:
    """Returns whether Keras named a layer or operation, after its class."""
    return re.sub(r"_\d+$", "", call.name).replace("_", "") == type(call.operation).__name__.lower()
