"""Rewrites of an ONNX graph that spare ONNX Runtime work, each with the same outputs.

They remove what converters from channels-last graphs leave behind and ONNX Runtime's own optimizer keeps.
"""

from __future__ import annotations

import collections
import importlib
from typing import Any

import numpy as np

TO_CHANNELS_FIRST = [0, 3, 1, 2]
ELEMENTWISE = ("Add", "Mul", "Sub", "Div")
NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid")


def simplify(model: Any) -> None:
    """Rewrites a model in place.

    - A reshape to the shape that a tensor has, as around the squeezes, is removed.
    - A padding with zeros before a max pooling of values that are never negative becomes that of the pooling.
    - A mean over height and width becomes a global average pooling, which stays in the blocked layout of convolutions.
    - Normalization of channels-last images takes place after their transposition, and row by row, to be vectorized.
    - A hard sigmoid, which converters write as four operations, becomes one.

    Args:
        model: An `onnx.ModelProto`.
    """
    onnx = importlib.import_module("onnx")
    shapes = _shapes(onnx.shape_inference.infer_shapes(model).graph)
    for rewrite in (_pool_means, _remove_reshapes, _merge_paddings, _transpose_first, _join_hard_sigmoids):
        rewrite(_View(model.graph, shapes))
    used = {name for node in model.graph.node for name in node.input}
    left = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(left)
    del model.graph.value_info[:]  # shapes of tensors that are transposed now


def lower_max_pools(model: Any) -> bool:
    """Rewrites, in place, max poolings over all axes of a map, which ONNX Runtime refuses, to those over space.

    jax2onnx writes JAX's poolings with a window of 1 over batch and channels, between two new axes.

    Args:
        model: An `onnx.ModelProto`.

    Returns:
        Whether there were any.
    """
    view = _View(model.graph, {})
    pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
    lowered = [_lower_max_pool(view, pool) for pool in pools]
    return any(lowered)


def _lower_max_pool(view: _View, pool: Any) -> bool:
    helper = importlib.import_module("onnx").helper
    before = _unsqueezes_before(view, pool)
    after = [node for node in view.graph.node if pool.output[0] in node.input]
    kernel = list(_attribute(pool, "kernel_shape"))
    rank = len(kernel)
    if len(before) != 2 or [node.op_type for node in after] != ["Squeeze"] or rank < 3:
        return False
    axes = [0, rank - 1, *range(1, rank - 1)] if kernel[-1] == 1 else list(range(rank))  # batch and channels first
    if any(kernel[axis] != 1 for axis in axes[:2]):
        return False
    settings = {name: _attribute(pool, name) for name in ("strides", "dilations", "pads")}
    spatial = {
        name: [values[axis + start] for start in range(0, len(values), rank) for axis in axes[2:]]
        for name, values in {"kernel_shape": kernel, **settings}.items()
        if values is not None
    }
    given, result = before[-1].input[0], after[0].output[0]
    nodes = [
        helper.make_node("Transpose", [given], [f"{result}_first"], perm=axes),
        helper.make_node("MaxPool", [f"{result}_first"], [f"{result}_pooled"], **spatial),
        helper.make_node("Transpose", [f"{result}_pooled"], [result], perm=[axes.index(axis) for axis in range(rank)]),
    ]
    place = list(view.graph.node).index(before[-1])
    for node in (*before, pool, *after):
        view.graph.node.remove(node)
    for offset, node in enumerate(nodes):
        view.graph.node.insert(place + offset, node)
    return True


def _unsqueezes_before(view: _View, node: Any) -> list[Any]:
    """Returns the nodes right before a node that insert axes, the last first."""
    before = view.producers.get(node.input[0])
    is_unsqueeze = getattr(before, "op_type", "") == "Unsqueeze"
    return [before, *_unsqueezes_before(view, before)] if is_unsqueeze else []


class _View:
    """A graph with the producer and the number of uses of each tensor, its shape if known, and its constants."""

    def __init__(self, graph: Any, shapes: dict[str, list[int]]) -> None:
        self.graph = graph
        self.shapes = shapes
        self.producers = {name: node for node in graph.node for name in node.output}
        self.uses = collections.Counter(name for node in graph.node for name in node.input)
        self.uses.update(output.name for output in graph.output)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}

    def constant(self, name: str) -> np.ndarray | None:
        tensor = self.constants.get(name)
        return None if tensor is None else importlib.import_module("onnx").numpy_helper.to_array(tensor)

    def scaled(self, node: Any) -> tuple[str, float]:
        """Returns the tensor and the number that an operation of two operands combines; "" and NaN for others."""
        values = [self.constant(name) for name in node.input[:2]]
        for tensor, value in zip(node.input, reversed(values), strict=False):
            if value is not None and value.size == 1:
                return tensor, float(value.item())
        return "", np.nan

    def remove(self, node: Any) -> None:
        """Removes a node; its first input takes the place of its output."""
        (output,) = node.output
        for other in self.graph.node:
            other.input[:] = [node.input[0] if name == output else name for name in other.input]
        self.graph.node.remove(node)


def _shapes(graph: Any) -> dict[str, list[int]]:
    """Returns the shapes of tensors whose rank is known, with -1 for unknown sizes."""
    return {
        value.name: [size.dim_value if size.HasField("dim_value") else -1 for size in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input)
        if value.type.tensor_type.HasField("shape")
    }


def _pool_means(view: _View) -> None:
    make_node = importlib.import_module("onnx").helper.make_node
    for mean in [node for node in view.graph.node if node.op_type == "ReduceMean"]:
        axes = _attribute(mean, "axes") if len(mean.input) == 1 else view.constant(mean.input[1])
        rank = len(view.shapes.get(mean.input[0], ()))
        if rank == 4 and axes is not None and sorted(axis % rank for axis in axes) == [2, 3]:
            place = list(view.graph.node).index(mean)
            view.graph.node.remove(mean)
            given, result = mean.input[0], mean.output[0]
            pooled = result if _attribute(mean, "keepdims") != 0 else f"{result}_pooled"
            view.graph.node.insert(place, make_node("GlobalAveragePool", [given], [pooled], name=pooled))
            if pooled != result:
                view.graph.node.insert(place + 1, make_node("Flatten", [pooled], [result], name=result))


def _remove_reshapes(view: _View) -> None:
    outputs = {output.name for output in view.graph.output}
    for node in [node for node in view.graph.node if node.op_type == "Reshape" and node.output[0] not in outputs]:
        new, old = view.constant(node.input[1]), view.shapes.get(node.input[0])
        if new is not None and old and -1 not in old[1:] and old[1:] == list(new[1:]) and new[0] in (-1, 0, old[0]):
            view.remove(node)


def _merge_paddings(view: _View) -> None:
    for pool in [node for node in view.graph.node if node.op_type == "MaxPool"]:
        pad = view.producers.get(pool.input[0])
        if pad is not None and pad.op_type == "Pad" and view.uses[pool.input[0]] == 1 and _is_of_zeros(view, pad):
            sizes = _spatial(view, pad, pool)
            if sizes is not None:
                kept = [attribute for attribute in pool.attribute if attribute.name not in ("pads", "auto_pad")]
                del pool.attribute[:]
                made = importlib.import_module("onnx").helper.make_attribute("pads", sizes)
                pool.attribute.extend([*kept, made])
                view.remove(pad)


def _is_of_zeros(view: _View, pad: Any) -> bool:
    value = view.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    before = view.producers.get(pad.input[0])
    is_constant = (_attribute(pad, "mode") or b"constant") == b"constant" and len(pad.input) < 4
    return is_constant and value is not None and not value.any() and getattr(before, "op_type", "") in NEVER_NEGATIVE


def _spatial(view: _View, pad: Any, pool: Any) -> list[int] | None:
    """Returns the padding of height and width as a pooling states it; None where the pooling cannot take it over."""
    sizes = view.constant(pad.input[1])
    if sizes is None or len(sizes) != 8 or sizes[[0, 1, 4, 5]].any() or any(_attribute(pool, "pads") or ()):
        return None
    spatial = [int(size) for size in sizes[[2, 3, 6, 7]]]
    kernel = _attribute(pool, "kernel_shape")
    is_smaller = all(0 <= size < limit for size, limit in zip(spatial, [*kernel, *kernel], strict=True))
    return spatial if is_smaller and _attribute(pool, "auto_pad") in (None, b"NOTSET", b"VALID") else None


def _attribute(node: Any, name: str) -> Any:
    found = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return None if found is None else importlib.import_module("onnx").helper.get_attribute_value(found)


def _transpose_first(view: _View) -> None:
    nodes = [node for node in view.graph.node if node.op_type == "Transpose"]
    for transpose in [node for node in nodes if _attribute(node, "perm") == TO_CHANNELS_FIRST]:
        chain = _elementwise_before(view, transpose)
        if chain:
            _move_before(view, transpose, chain)


def _elementwise_before(view: _View, transpose: Any) -> list[Any]:
    """Returns the operations with one constant per channel, last first, whose results only the transposition reads."""
    chain: list[Any] = []
    tensor = transpose.input[0]
    while view.uses[tensor] == 1 and getattr(view.producers.get(tensor), "op_type", "") in ELEMENTWISE:
        node = view.producers[tensor]
        constants = [name for name in node.input if _is_per_channel(view.constant(name))]
        if len(constants) != 1:
            break
        chain.append(node)
        tensor = next(name for name in node.input if name not in constants)
    return chain


def _is_per_channel(value: np.ndarray | None) -> bool:
    return value is not None and value.ndim <= 4 and value.size == (value.shape or (1,))[-1]


def _move_before(view: _View, transpose: Any, chain: list[Any]) -> None:
    numpy_helper = importlib.import_module("onnx").numpy_helper
    last, first = chain[0], chain[-1]
    # In 8 bits, ONNX Runtime computes on channels-last maps after all, where a row is vectorized, not three channels.
    _, _, width, _ = view.shapes.get(transpose.input[0], [1] * 4)
    for node in chain:
        for position, name in enumerate(node.input):
            value = view.constant(name)
            if value is not None:
                node.input[position] = f"{name}_of_{node.output[0]}"
                whole = np.repeat(value.reshape(-1, 1, 1), max(width, 1), axis=2)
                view.graph.initializer.append(numpy_helper.from_array(whole, node.input[position]))
    place = next(i for i, name in enumerate(first.input) if name not in {t.name for t in view.graph.initializer})
    given, inner, result = first.input[place], transpose.input[0], transpose.output[0]
    transpose.input[0], transpose.output[0], last.output[0] = given, inner, result
    first.input[place] = inner
    index = list(view.graph.node).index(first)
    view.graph.node.remove(transpose)
    view.graph.node.insert(index, transpose)


def _join_hard_sigmoids(view: _View) -> None:
    make_node = importlib.import_module("onnx").helper.make_node
    for last in [node for node in view.graph.node if node.op_type in ("Mul", "Div")]:
        clip = _divided_by_six(view, last)
        add = None if clip is None else _three_added(view, clip)
        if add is not None:
            tensor, _ = view.scaled(add)
            one = make_node("HardSigmoid", [tensor], list(last.output), name=last.name, alpha=1 / 6, beta=0.5)
            view.graph.node.insert(list(view.graph.node).index(last), one)
            for node in (add, clip, last):
                view.graph.node.remove(node)


def _divided_by_six(view: _View, node: Any) -> Any:
    """Returns the clipping whose result a multiplication or division divides by six, else None."""
    tensor, factor = view.scaled(node)
    before = view.producers.get(tensor)
    is_clip = getattr(before, "op_type", "") == "Clip" and view.uses[tensor] == 1
    divisor = factor if node.op_type == "Div" else 1 / (factor or np.inf)
    return before if is_clip and tensor in _dividends(node) and abs(divisor - 6) < 1e-5 else None


def _dividends(node: Any) -> list[str]:
    return list(node.input[:1] if node.op_type == "Div" else node.input)


def _three_added(view: _View, clip: Any) -> Any:
    """Returns the addition of three whose result a clipping limits to the range from 0 to 6, else None."""
    bounds = [view.constant(name) for name in clip.input[1:]]
    is_from_0_to_6 = len(bounds) == 2 and [None if bound is None else bound.item() for bound in bounds] == [0, 6]
    before = view.producers.get(clip.input[0])
    is_addition = getattr(before, "op_type", "") == "Add" and view.uses[clip.input[0]] == 1
    return before if is_from_0_to_6 and is_addition and view.scaled(before)[1] == 3 else None
