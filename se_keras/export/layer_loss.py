"""Loss of each operation of an integer `.tflite` file, compared with the same graph in float.

The operations of both files are paired by the names of the tensors that they compute. Each is measured twice: within
the network, where it also passes on the losses before it, and alone, with the same inputs in both files. For the
second, the float graph is cut apart: every operation reads inputs of its own. The ratio of a tensor is that of its
median channel: where one channel with huge values leaves no room for the others, a sum over all would hide their loss.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from se_keras.export.calibration import Calibration
from se_keras.export.inputs import Feed, in_order
from se_keras.export.inspect_tflite import RIM, Operation, TFLiteGraph, read_tflite
from se_keras.export.tflite_file import dequantized, packed, read_model
from se_keras.export.tflite_runtime import TFLiteRunner

LEAST_DECIBELS = 20.0  # below it, the noise has more than 1% of the signal's power


@dataclasses.dataclass(frozen=True)
class LayerLoss:
    """The loss of one operation of an integer file.

    Args:
        name: Name of the tensor that it computes, in the float form.
        operation: Its name in the schema, such as "CONV_2D".
        alone: Signal-to-noise ratio of its output in decibels, in the median channel, given the inputs that it has in
            the file: what this operation loses. Infinite without any loss.
        within: The same, compared with the float form on its own inputs: what all operations so far have lost.
        place: Its index among the operations of the float form, in execution order.
    """

    name: str
    operation: str
    alone: float
    within: float
    place: int


@dataclasses.dataclass(frozen=True)
class _Pair:
    """An operation of the file and its counterpart.

    Args:
        operation: The operation of the file.
        place: Index of the counterpart among the operations of the float form.
        output: Index of the tensor that the counterpart computes.
        sources: For each tensor that the counterpart reads, the tensor of the file with the same meaning.
    """

    operation: Operation
    place: int
    output: int
    sources: dict[int, int]


def layer_losses(
    path: str | os.PathLike, float_path: str | os.PathLike, feed: Feed
) -> tuple[tuple[LayerLoss, ...], int]:
    """Measures the loss of each operation.

    Args:
        path: An integer `.tflite` file.
        float_path: The same graph in float, whose tensors have the same names.
        feed: The inputs to run both on.

    Returns:
        The losses of all operations with a counterpart in float, the largest loss of an operation alone first, and the
        number of operations without a counterpart.

    Raises:
        ValueError: No operation has a counterpart.
    """
    graph, twin = read_tflite(path), read_tflite(float_path)
    names = {tensor.name: tensor.index for operation in twin.operations for tensor in _tensors(operation)}
    pairs = list(_pairs(graph, twin, _partners(graph, names)))
    if not pairs:
        raise ValueError(
            f"No operation of {os.fspath(path)!r} has a counterpart in float with the same name. Pass the model that "
            "it was exported from, or the same export with dtype='fp32'."
        )
    powers = _powers(path, float_path, pairs, feed)
    names_of = {index: name for name, index in names.items()}
    losses = [
        LayerLoss(names_of[pair.output], pair.operation.name, _decibels(*alone), _decibels(*within), pair.place)
        for pair, (alone, within) in zip(pairs, powers, strict=True)
    ]
    count = sum(operation.name not in RIM for operation in graph.operations)
    return tuple(sorted(losses, key=lambda loss: loss.alone)), count - len(losses)


def lossy(losses: Sequence[LayerLoss]) -> list[LayerLoss]:
    """Returns the operations whose own noise exceeds 1% of the power of their signal."""
    return [loss for loss in losses if loss.alone < LEAST_DECIBELS]


def loss_notes(losses: Sequence[LayerLoss], unpaired: int) -> tuple[str, ...]:
    """Summarizes the losses of a file in sentences.

    Args:
        losses: As from `layer_losses`.
        unpaired: Number of operations without a counterpart.

    Returns:
        How many operations lose much, and how many could not be measured, if any.
    """
    worst = [loss.name for loss in lossy(losses)]
    found = f"{len(worst)} of {len(losses)} operations lose more than 1% of the power of their signal"
    if worst:
        found += "; export with keep_float='auto' to find out whether keeping them in float helps"
    rest = f"{unpaired} operations have no counterpart in float and were not measured."
    return (f"{found}.", rest) if unpaired else (f"{found}.",)


def _tensors(operation: Operation) -> tuple[Any, ...]:
    return (*operation.inputs, *operation.outputs)


def _partners(graph: TFLiteGraph, names: dict[str, int]) -> dict[int, int]:
    """Returns the float tensor with the meaning of each tensor of the file; at its rim, two share a meaning."""
    found = {
        tensor.index: names[tensor.name]
        for operation in graph.operations
        for tensor in _tensors(operation)
        if tensor.name in names and not tensor.constant
    }
    for operation in (*graph.operations, *reversed(graph.operations)):
        if operation.name in RIM:
            ends = operation.inputs[0].index, operation.outputs[0].index
            for one, other in (ends, ends[::-1]):
                if one in found:
                    found.setdefault(other, found[one])
    return found


def _pairs(graph: TFLiteGraph, twin: TFLiteGraph, partners: dict[int, int]) -> Iterator[_Pair]:
    places = {operation.outputs[0].index: place for place, operation in enumerate(twin.operations)}
    for operation in graph.operations:
        output = partners.get(operation.outputs[0].index)
        if operation.name in RIM or output not in places or not _is_same(operation, twin.operations[places[output]]):
            continue
        sources = {
            partners[tensor.index]: tensor.index
            for tensor in operation.inputs
            if not tensor.constant and tensor.index in partners
        }
        yield _Pair(operation, places[output], output, sources)


def _is_same(operation: Operation, other: Operation) -> bool:
    return operation.name == other.name and operation.outputs[0].shape == other.outputs[0].shape


def _powers(
    path: str | os.PathLike, float_path: str | os.PathLike, pairs: Sequence[_Pair], feed: Feed
) -> list[np.ndarray]:
    """Returns the power of signal and noise of each pair, alone and within the network, shapes (2, 2, channels)."""
    model = read_model(pathlib.Path(float_path).read_bytes())
    feeds = _cut_apart(model, {pair.place for pair in pairs})
    with tempfile.TemporaryDirectory() as folder:
        pieces_path = pathlib.Path(folder, "pieces.tflite")
        pieces_path.write_bytes(packed(model))
        file, whole, pieces = (_Observed(one) for one in (path, float_path, pieces_path))
        powers = [np.zeros((2, 2, _channels(pair.operation.outputs[0].shape))) for pair in pairs]
        for batch in Calibration(feed).batches(file.runner.batch or 1):
            for observed in (file, whole):
                observed.runner.run_one(in_order(observed.runner.inputs, batch))
            for pair in pairs:
                for index, copied in feeds[pair.place].items():
                    source = pair.sources.get(index)
                    value = whole.value(index) if source is None else file.value(source)
                    pieces.runner.interpreter.set_tensor(copied, value)
            pieces.runner.interpreter.invoke()
            for number, pair in enumerate(pairs):
                value = file.value(pair.operation.outputs[0].index)
                for column, expected in enumerate((pieces.value(pair.output), whole.value(pair.output))):
                    powers[number][column] += _power(expected), _power(expected - value)
    return powers


class _Observed:
    """A file whose tensors can all be read after a run."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.runner = TFLiteRunner(path, threads=os.cpu_count() or 1, kernels="reference")
        self.details = {entry["index"]: entry for entry in self.runner.interpreter.get_tensor_details()}

    def value(self, index: int) -> np.ndarray:
        """Returns the real values of a tensor."""
        return dequantized(self.runner.interpreter.get_tensor(index), self.details[index])


def _cut_apart(model: Any, places: set[int]) -> dict[int, dict[int, int]]:
    """Makes operations read inputs of their own; returns the copy of each tensor that they read, by their index."""
    graph = model.subgraphs[0]
    flowing = {int(index) for operator in graph.operators for index in operator.outputs} | set(graph.inputs.tolist())
    feeds: dict[int, dict[int, int]] = {}
    for place in sorted(places):
        operator, feeds[place] = graph.operators[place], {}
        for index in sorted(flowing & set(operator.inputs.tolist())):
            feeds[place][index] = len(graph.tensors)
            graph.tensors.append(copy.copy(graph.tensors[index]))
        operator.inputs = np.array([feeds[place].get(index, index) for index in operator.inputs.tolist()], "int32")
    copies = [copied for feed in feeds.values() for copied in feed.values()]
    graph.inputs, model.signatureDefs = np.array([*graph.inputs, *copies], "int32"), []
    return feeds


def _channels(shape: Sequence[int]) -> int:
    return shape[-1] if len(shape) > 1 else 1


def _power(values: np.ndarray) -> np.ndarray:
    """Returns the sum of squares of each channel."""
    return np.square(values, dtype="float64").reshape(-1, _channels(values.shape)).sum(0)


def _decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    """Returns the ratio of the median channel; those without any signal do not count."""
    ratio = float(np.median(noise[signal > 0] / signal[signal > 0])) if signal.any() else float(noise.any())
    return -10 * float(np.log10(ratio)) if ratio > 0 else float("inf")
