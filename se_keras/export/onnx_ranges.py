"""Ranges of the tensors of an ONNX model on images."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from se_keras.export.inputs import Feed, part_of, rows_of
from se_keras.export.ranges import Observed, Range, Response, hard_sigmoid, hard_swish, identity, sigmoid, swish

RESPONSES: Mapping[frozenset[str], Response] = {
    frozenset({"HardSwish"}): hard_swish,
    frozenset({"HardSigmoid"}): hard_sigmoid,
    frozenset({"HardSigmoid", "Mul"}): hard_swish,
    frozenset({"Sigmoid"}): sigmoid,
    frozenset({"Sigmoid", "Mul"}): swish,
}
"""By the operations that read a tensor."""


def onnx_ranges(model: Any, feed: Feed) -> list[dict[str, Range]]:
    """Returns the ranges in which images lose least, and those of all values.

    Args:
        model: An `onnx.ModelProto` with the shapes and types of its tensors.
        feed: Values of its inputs by their names.

    Returns:
        Both choices of the range of each float tensor that is an input or computed, by its name; one if they are the
        same. Inputs, outputs, and tensors that an output is computed from, keep the range of all values: if clipped,
        two outputs could become equal.
    """
    float32 = importlib.import_module("onnx").TensorProto.FLOAT
    computed = {name for node in model.graph.node for name in node.output}  # converters describe others as well
    values = (*model.graph.value_info, *model.graph.output)
    described = dict.fromkeys(value.name for value in values if value.type.tensor_type.elem_type == float32)
    names = [name for name in described if name in computed]
    ends, responses = _ends(model.graph), _responses(model.graph)

    def both(name: str, observed: Observed) -> tuple[Range, Range]:
        return (observed.range_of_all(),) * 2 if name in ends else observed.ranges(responses.get(name, identity))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = _observed(model, names, feed, pool)
        inside = list(pool.map(both, found, found.values()))
    given = [value.name for value in model.graph.input if value.type.tensor_type.elem_type == float32]
    outside = {name: (float(feed[name].min()), float(feed[name].max())) for name in given}
    choices = [outside | {name: ranges[i] for name, ranges in zip(found, inside, strict=True)} for i in (0, 1)]
    return choices if choices[0] != choices[1] else choices[:1]


def _observed(model: Any, names: list[str], feed: Feed, pool: ThreadPoolExecutor) -> dict[str, Observed]:
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    observable = onnx.ModelProto()
    observable.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    inside = {value.name: value for value in model.graph.value_info}
    observable.graph.output.extend(inside[name] for name in names if name not in outputs)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    content = observable.SerializeToString()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = {name: Observed(seed=place) for place, name in enumerate(names)}
    for row in range(rows_of(feed)):
        results = session.run(names, part_of(feed, row, row + 1))
        list(pool.map(lambda one, result: one.add(result), found.values(), results))
    return found


def _ends(graph: Any) -> set[str]:
    outputs = {value.name for value in graph.output}
    return outputs.union(name for node in graph.node if outputs & set(node.output) for name in node.input[:1])


def _responses(graph: Any) -> dict[str, Response]:
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    found = ((name, RESPONSES.get(frozenset(operations))) for name, operations in readers.items())
    return {name: response for name, response in found if response is not None}
