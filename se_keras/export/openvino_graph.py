"""Rewrites of an OpenVINO graph that save work on CPUs; the outputs stay the same.

They remove what the conversion of a channels-last graph leaves behind, and OpenVINO's own optimizer does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

ELEMENTWISE = ("Add", "Divide", "Multiply", "Subtract")
NEVER_NEGATIVE = ("Relu", "Sigmoid")


def simplify(model: Any) -> None:
    """Rewrites a model in place.

    - Moves the transposition of an input behind its normalization, where it only changes the layout and takes no time.
    - Merges a padding with zeros into the max pooling that reads it, if the padded values are never negative.

    Args:
        model: An `openvino.Model` in float.
    """
    for parameter in model.get_parameters():
        _transpose_last(parameter)
    for pool in model.get_ordered_ops():
        if pool.get_type_name() == "MaxPool":
            _merge_padding(pool)
    model.validate_nodes_and_infer_types()


def _transpose_last(parameter: Any) -> None:
    """Moves the transposition of an input behind the elementwise operations with constants that follow it."""
    import openvino

    transpose = _sole_reader(parameter)
    if transpose is None or transpose.get_type_name() != "Transpose":
        return
    order = _constant(transpose.input_value(1))
    if order is None:
        return
    back = np.argsort(order)
    last = parameter
    operation = _sole_reader(transpose)
    while operation is not None and _is_with_constants(operation, len(back)):
        for given in operation.inputs():
            value = _constant(given.get_source_output())
            if value is None:
                given.replace_source_output(last.output(0))
            elif value.ndim == len(back):
                turned = openvino.opset13.constant(np.ascontiguousarray(value.transpose(back)))
                given.replace_source_output(turned.output(0))
        last, operation = operation, _sole_reader(operation)
    if last is not parameter:
        readers = last.output(0).get_target_inputs()
        turned = openvino.opset13.transpose(last.output(0), openvino.opset13.constant(order))
        _pass_on(last.output(0), readers, turned.output(0))


def _is_with_constants(operation: Any, rank: int) -> bool:
    """Returns whether an operation is elementwise, and all operands but one are constants: of this rank, or numbers."""
    if operation.get_type_name() not in ELEMENTWISE:
        return False
    values = [value for given in operation.input_values() if (value := _constant(given)) is not None]
    fits = all(value.ndim == rank or (value.size == 1 and value.ndim < rank) for value in values)
    return fits and len(values) == operation.get_input_size() - 1


def _merge_padding(pool: Any) -> None:
    import openvino

    pad = pool.input_value(0).get_node()
    if pad.get_type_name() != "Pad" or _sole_reader(pad) is None or not _is_neutral(pad):
        return
    attributes = pool.get_attributes()
    begin, end = (_constant(pad.input_value(place)) for place in (1, 2))
    if begin is None or end is None:
        return
    kernel = attributes["kernel"]
    is_padded = attributes["auto_pad"].startswith("same") or any([*attributes["pads_begin"], *attributes["pads_end"]])
    # A window may not lie in the padding alone, whose values are then the lowest number instead of zero.
    is_plain = attributes["rounding_type"] == "floor" and set(attributes.get("dilations", [1])) == {1}
    if is_padded or not is_plain or not _fits(begin, kernel) or not _fits(end, kernel):
        return
    made = openvino.opset13.max_pool(
        pad.input_value(0),
        attributes["strides"],
        [1] * len(kernel),
        begin[2:].tolist(),
        end[2:].tolist(),
        kernel,
        attributes["rounding_type"],
        "explicit",
    )
    _pass_on(pool.output(0), pool.output(0).get_target_inputs(), made.output(0))


def _is_neutral(pad: Any) -> bool:
    """Returns whether a padding adds zeros to values that are never negative: no maximum changes."""
    value = _constant(pad.input_value(3)) if pad.get_input_size() > 3 else np.zeros(1)
    before = pad.input_value(0).get_node()
    is_clipped = before.get_type_name() == "Clamp" and before.get_attributes()["min"] >= 0
    is_of_zeros = pad.get_attributes()["pad_mode"] == "constant" and value is not None and not value.any()
    return is_of_zeros and (is_clipped or before.get_type_name() in NEVER_NEGATIVE)


def _fits(sizes: np.ndarray, kernel: Sequence[int]) -> bool:
    """Returns whether a pooling can take over a padding: only of spatial axes, and smaller than its window."""
    return not sizes[:2].any() and all(0 <= size < limit for size, limit in zip(sizes[2:], kernel, strict=True))


def _pass_on(old: Any, readers: Iterable[Any], new: Any) -> None:
    """Redirects inputs to another output, which takes over the names: they may name outputs of the model."""
    names = old.get_names()
    old.set_names(set())
    new.set_names(names)
    for reader in readers:
        reader.replace_source_output(new)


def _sole_reader(operation: Any) -> Any:
    """Returns the operation that alone reads the first output of another, or None."""
    readers = list(operation.output(0).get_target_inputs())
    return readers[0].get_node() if len(readers) == 1 else None


def _constant(output: Any) -> np.ndarray | None:
    node = output.get_node()
    return node.data if node.get_type_name() == "Constant" else None
