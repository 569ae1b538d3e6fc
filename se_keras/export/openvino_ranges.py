"""Ranges of the tensors of an OpenVINO model on images, and their place in a quantized one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from se_keras.export.inputs import Feed, part_of, rows_at, rows_of
from se_keras.export.ranges import (
    Observed,
    Range,
    Response,
    Search,
    best_range,
    best_symmetric_range,
    closest,
    compared,
    hard_sigmoid,
    hard_swish,
    identity,
    sigmoid,
    swish,
)

LEVELS = 256
FEW_NEGATIVE = 0.25  # of the largest value: a symmetric range then wastes more than three eighths of its levels
RESPONSES: Mapping[frozenset[str], Response] = {
    frozenset({"HSwish"}): hard_swish,
    frozenset({"HSigmoid"}): hard_sigmoid,
    frozenset({"Sigmoid"}): sigmoid,
    frozenset({"Swish"}): swish,
}
"""By the operations that read a tensor."""


def set_ranges(quantized: Any, model: Any, feed: Feed) -> None:
    """Sets the ranges of a quantized model: those in which images lose least or of all values, as its outputs decide.

    Ranges per channel, which NNCF chooses in front of depthwise convolutions, stay as they are.

    Args:
        quantized: An `openvino.Model` as NNCF quantizes it, changed in place.
        model: The `openvino.Model` in float that it was quantized from.
        feed: Values of its inputs by their names.
    """
    names = {operation.get_friendly_name() for operation in model.get_ops()}
    steps = [one for one in quantized.get_ops() if _is_of_tensor(one) and _source(one) in names]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = _observed(model, sorted({_source(one) for one in steps}), feed, pool)
        grids = [_grid(one, found[_source(one)]) for one in steps]

        def both_ranges(step: Any, grid: Grid) -> tuple[Range, Range]:
            observed = found[_source(step)]
            if step.input_value(0).get_node().get_type_name() == "Parameter":  # clipped, two inputs could become equal
                return (observed.range_of_all(),) * 2
            return observed.ranges(RESPONSES.get(_readers(step), identity), grid.search)

        both = list(pool.map(both_ranges, steps, grids))

    few = rows_at(feed, compared(rows_of(feed)))

    def put(choice: Sequence[Range]) -> None:
        for operation, grid, (low, high) in zip(steps, grids, choice, strict=True):
            _set_range(operation, *grid.fitted(low, high))

    def outputs_with(choice: Sequence[Range]) -> list[np.ndarray]:
        put(choice)
        return _outputs(quantized, few)

    choices = list(dict.fromkeys(zip(*both, strict=True)))
    if choices:
        put(closest(choices, outputs_with, lambda: _outputs(model, few)))


def signed_or_unsigned(low: float, high: float) -> Range:
    """Returns the smallest range that contains another: from 0 if nothing is negative, else from -128 to 127 steps."""
    if low >= 0:
        return 0.0, max(high, 0.0)
    largest = max(high, low * -127 / 128)
    return largest * -128 / 127, largest


def with_exact_zero(low: float, high: float) -> Range:
    """Returns a range with 0 as one of its levels that contains another, short of at most half a step."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (LEVELS - 1)
    zero = round(-low / step) if step > 0 else 0
    return -zero * step, (LEVELS - 1 - zero) * step


class Grid(NamedTuple):
    """How the range of a tensor is found, and how it is then fitted to levels."""

    search: Search
    fitted: Callable[[float, float], Range]


SYMMETRIC = Grid(best_symmetric_range, signed_or_unsigned)
ASYMMETRIC = Grid(best_range, with_exact_zero)


def _grid(operation: Any, observed: Observed) -> Grid:
    """Returns the grid of a tensor: asymmetric if few values are negative, and gates, means, or products are involved.

    A swish, for example, is never below -0.4, so a symmetric range would leave almost half of its levels unused. Other
    operations are slower if they read asymmetric ranges.
    """
    readers = _readers(operation)
    is_product = readers == {"Convolution"} and operation.input_value(0).get_node().get_type_name() == "Multiply"
    is_of_gates = is_product or readers <= {"Multiply", "ReduceMean"}
    return ASYMMETRIC if is_of_gates and -observed.low < FEW_NEGATIVE * observed.high else SYMMETRIC


def _is_of_tensor(operation: Any) -> bool:
    """Returns whether an operation quantizes a computed tensor with one range."""
    if operation.get_type_name() != "FakeQuantize" or operation.get_levels() != LEVELS:
        return False
    if operation.input_value(0).get_index():
        return False
    bounds = [operation.input_value(place) for place in range(1, 5)]
    is_constant = all(bound.get_node().get_type_name() == "Constant" for bound in bounds)
    return is_constant and all(np.prod(list(bound.get_shape()), dtype=int) == 1 for bound in bounds)


def _source(operation: Any) -> str:
    return operation.input_value(0).get_node().get_friendly_name()


def _readers(operation: Any) -> frozenset[str]:
    return frozenset(one.get_node().get_type_name() for one in operation.output(0).get_target_inputs())


def _set_range(operation: Any, low: float, high: float) -> None:
    import openvino

    for place, bound in enumerate((low, high, low, high), start=1):
        old = operation.input_value(place)
        values: np.ndarray = np.full(list(old.get_shape()), bound, "float32")
        operation.input(place).replace_source_output(openvino.opset13.constant(values).output(0))


def _outputs(model: Any, feed: Feed) -> list[np.ndarray]:
    import openvino

    results = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feed)
    return [np.array(results[place]) for place in range(len(results))]


def _observed(model: Any, names: Sequence[str], feed: Feed, pool: ThreadPoolExecutor) -> dict[str, Observed]:
    import openvino

    observable = model.clone()
    operations = {one.get_friendly_name(): one for one in observable.get_ops()}
    observable.add_outputs([operations[name].output(0) for name in names])
    compiled = openvino.Core().compile_model(observable, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    places = compiled.outputs[-len(names) :]
    found = {name: Observed(seed=place) for place, name in enumerate(names)}
    for row in range(rows_of(feed)):
        results = compiled(part_of(feed, row, row + 1))
        list(pool.map(Observed.add, found.values(), [results[place] for place in places]))
    return found
