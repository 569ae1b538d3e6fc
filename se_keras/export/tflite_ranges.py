"""Ranges of the tensors of a `.tflite` file on images.

TensorFlow's converter can find extremes itself, with plain kernels on one thread. That takes longer than the rest
of an export, and reads some tensors after others have overwritten them. Here the runtime's fast kernels find them.
"""

from __future__ import annotations

import copy
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from se_keras.export.inputs import Feed, in_order, rows_of
from se_keras.export.ranges import Observed, Range, Response, compared, hard_swish, identity, sigmoid, swish
from se_keras.export.tensorflow_internals import schema_module
from se_keras.export.tflite_file import holds_data, packed, read_model
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.progress import Advance

MOST_BYTES = 256 * 2**20  # of tensors kept at a time to find their ranges
RESPONSES: Mapping[frozenset[str], Response] = {
    frozenset({"HARD_SWISH"}): hard_swish,
    frozenset({"LOGISTIC"}): sigmoid,
    frozenset({"LOGISTIC", "MUL"}): swish,
}
"""By the operations that read a tensor."""


class Ranged(NamedTuple):
    """A float `.tflite` file with choices of ranges, ready for quantization.

    Args:
        model: The unpacked file.
        choices: Each choice: the range of every tensor that is not constant, by the index of the tensor.
        outputs: The outputs on the samples of `ranges.compared`, in the order of their names.
    """

    model: Any
    choices: list[dict[int, Range]]
    outputs: list[np.ndarray]

    def content(self, place: int) -> bytes:
        """Returns the content of the file with the ranges of `choices[place]`, which are written into `model`."""
        for index, (low, high) in self.choices[place].items():
            tensor = self.model.subgraphs[0].tensors[index]
            record = tensor.quantization or schema_module().QuantizationParametersT()
            record.min, record.max = np.array([low], "float32"), np.array([high], "float32")
            tensor.quantization = record
        return packed(self.model)


def with_ranges(content: bytes, batches: Sequence[Feed], advance: Advance = lambda: None) -> Ranged:
    """Finds the range in which images lose least, and that of all values, of each tensor in a float `.tflite` file.

    Inputs, outputs, and tensors that an output is computed from keep the range of all values: if they were clipped,
    two outputs could become equal.

    Args:
        content: The content of the file.
        batches: The inputs in batches of the file's size, at least one; all are observed.
        advance: Called after each batch.

    Returns:
        The file with both choices of ranges, or one if they are the same, and the outputs.

    Raises:
        ValueError: The values of a tensor are not finite.
    """
    model = read_model(content)
    tensors = model.subgraphs[0].tensors
    computed = [index for index, tensor in enumerate(tensors) if _is_computed_float(tensor, model.buffers)]
    parts = _parts(computed, [4 * int(np.prod(tensors[index].shape, dtype=np.int64)) for index in computed])
    silent = [lambda: None] * (len(parts) - 1)
    found: dict[int, Observed] = {}
    outputs: dict[str, np.ndarray] = {}
    for part, tell in zip(parts, [*silent, advance], strict=True):
        seen, answers = _observed(model, part, batches, tell)
        found, outputs = found | seen, outputs | answers
    unbounded = [index for index, observed in found.items() if not observed.is_finite]
    if unbounded:
        names = [tensors[index].name.decode() for index in unbounded[:3]]
        raise ValueError(
            f"An integer file needs finite activations; on `data`, these tensors are not finite: "
            f"{', '.join(names)}. Check the model's weights."
        )
    ends, responses = _ends(model.subgraphs[0]), _responses(model)

    def both(index: int) -> tuple[Range, Range]:
        observed = found[index]
        return (observed.range_of_all(),) * 2 if index in ends else observed.ranges(responses.get(index, identity))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        choices = dict.fromkeys(zip(*pool.map(both, found), strict=True))
    ranges = [dict(zip(found, choice, strict=True)) for choice in choices]
    return Ranged(model, ranges, [outputs[name] for name in sorted(outputs)])


def _ends(graph: Any) -> set[int]:
    """Returns inputs, outputs, and the tensors that an output is computed from."""
    outputs = set(graph.outputs.tolist())
    last = [operator for operator in graph.operators if outputs & set(operator.outputs.tolist())]
    return outputs.union(graph.inputs.tolist(), *(operator.inputs.tolist()[:1] for operator in last))


def _responses(model: Any) -> dict[int, Response]:
    """Returns the functions through which tensors are read, for tensors that only operations in `RESPONSES` read."""
    operators = vars(schema_module().BuiltinOperator)
    codes = {code: name for name, code in operators.items() if not name.startswith("_")}
    readers: dict[int, set[str]] = {}
    for operator in model.subgraphs[0].operators:
        name = codes[model.operatorCodes[operator.opcodeIndex].builtinCode]
        for index in operator.inputs.tolist():
            readers.setdefault(index, set()).add(name)
    found = ((index, RESPONSES.get(frozenset(names))) for index, names in readers.items())
    return {index: response for index, response in found if response is not None}


def _is_computed_float(tensor: Any, buffers: Sequence[Any]) -> bool:
    return tensor.type == schema_module().TensorType.FLOAT32 and not holds_data(buffers[tensor.buffer])


def _parts(indexes: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Splits tensors of these sizes into groups that fit into memory; most networks need one."""
    parts: list[list[int]] = []
    left = 0
    for index, size in zip(indexes, sizes, strict=True):
        if not parts or size > left:
            parts.append([])
            left = MOST_BYTES
        parts[-1].append(index)
        left -= size
    return parts


def _observed(
    model: Any, indexes: Sequence[int], batches: Sequence[Feed], advance: Advance
) -> tuple[dict[int, Observed], dict[str, np.ndarray]]:
    """Runs a model on all batches; returns what it observed of each tensor, and the compared outputs among them."""
    found = {index: Observed(seed=index) for index in indexes}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "calibration.tflite")
        path.write_bytes(packed(_with_outputs(model, indexes)))
        runner = TFLiteRunner(path, threads=os.cpu_count() or 1)
        values = {index: runner.interpreter.tensor(index) for index in indexes}
        own = set(model.subgraphs[0].outputs.tolist()) & set(indexes)
        outputs = {name: values[one["index"]] for name, one in runner.ends[1].items() if one["index"] in own}
        answers: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
        rows = rows_of(batches[0])
        places = set(compared(len(batches), rows))
        for place, batch in enumerate(batches):
            runner.invoke(in_order(runner.inputs, batch))
            for index, observed in found.items():
                observed.add(values[index](), rows)
            for name, value in outputs.items() if place in places else ():
                answers[name].append(value().copy())
            advance()
    return found, {name: np.concatenate(parts) for name, parts in answers.items()}


def _with_outputs(model: Any, indexes: Sequence[int]) -> Any:
    """Returns the model with these tensors as its outputs: no others survive a run."""
    graph, whole = copy.copy(model.subgraphs[0]), copy.copy(model)
    graph.outputs = np.array([index for index in indexes if index not in graph.inputs], "int32")
    whole.subgraphs = [graph, *model.subgraphs[1:]]
    return whole
