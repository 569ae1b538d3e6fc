"""Headroom of every squeeze below the largest half-precision number.

A GPU sums the positions of a map in half precision, regardless of the file, and a sum above 65,504 becomes infinite.
The mean may still be small: the intermediate sum overflows.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.batch_prediction import predict_batch
from se_keras.export.inputs import Feed, part_of, rows_of
from se_keras.export.inspect_tflite import Operation, TFLiteGraph
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.layers import SqueezeExcite

LARGEST_HALF = 65504.0  # of IEEE 754 binary16
IMAGES_AT_ONCE = 4  # the input maps of all squeezes are kept at the same time
LEAST_POSITIONS = 10  # in practice, means over fewer do not overflow before their input does


@dataclasses.dataclass(frozen=True)
class Headroom:
    """The headroom of one squeeze, observed on images.

    Args:
        name: Name of the layer, or of the tensor that a file's operation reads.
        positions: Number of positions it sums.
        largest_sum: The largest sum of a channel in any summation order: positive and negative
            values are summed separately.
    """

    name: str
    positions: int
    largest_sum: float

    @property
    def ratio(self) -> float:
        """Returns how many times larger the sum could be; below 1, it overflows."""
        return LARGEST_HALF / self.largest_sum if self.largest_sum > 0 else float("inf")


def headroom_of_tflite(path: str | os.PathLike, graph: TFLiteGraph, feed: Feed) -> tuple[Headroom, ...]:
    """Returns the headroom of every mean in a `.tflite` file that computes in float.

    Args:
        path: The file.
        graph: Its structure.
        feed: The inputs to run it on.

    Returns:
        One entry for each mean over at least ten positions, in the order of the file.
    """
    squeezes = [operation for operation in graph.operations if _is_squeeze(operation)]
    if not squeezes:
        return ()
    runner = TFLiteRunner(path, kernels="reference")
    largest = [0.0] * len(squeezes)
    for row in range(rows_of(feed)):
        runner.run(part_of(feed, row, row + 1))
        for number, operation in enumerate(squeezes):
            values = runner.interpreter.get_tensor(operation.inputs[0].index)
            largest[number] = max(largest[number], _largest_sum(values, _window(operation, values)))
    return tuple(
        Headroom(operation.inputs[0].name, int(np.prod(_window(operation, None))), value)
        for operation, value in zip(squeezes, largest, strict=True)
    )


def _is_squeeze(operation: Operation) -> bool:
    if operation.name not in ("MEAN", "SUM", "AVERAGE_POOL_2D") or operation.inputs[0].dtype != "FLOAT32":
        return False
    shape = operation.inputs[0].shape
    if len(shape) != 4 or np.prod(_window(operation, None)) < LEAST_POSITIONS:
        return False
    return operation.window is not None or np.prod(operation.outputs[0].shape) == shape[0] * shape[3]


def _window(operation: Operation, values: np.ndarray | None) -> tuple[int, int]:
    height, width = (operation.inputs[0].shape if values is None else values.shape)[1:3]
    window = operation.window or (height, width)
    return min(window[0], height), min(window[1], width)


def headroom_of_model(model: keras.Model, feed: Feed) -> tuple[Headroom, ...]:
    """Returns the headroom of every squeeze and global pool of a Keras model.

    Args:
        model: A functional model.
        feed: The inputs to run it on, in their order.

    Returns:
        One entry for each layer that averages at least ten positions, in the order of the model.
    """
    return headroom_of_squeezes(observed_squeezes(model, feed))


def headroom_of_squeezes(squeezes: Iterable[Squeeze]) -> tuple[Headroom, ...]:
    """Returns the headroom of squeezes over at least ten positions, as in `headroom_of_model`."""
    entries = (Headroom(squeeze.name, squeeze.positions, squeeze.largest_sum) for squeeze in squeezes)
    return tuple(entry for entry in entries if entry.positions >= LEAST_POSITIONS)


@dataclasses.dataclass(frozen=True)
class Squeeze:
    """A squeeze or global pool of a Keras model, observed on images.

    Args:
        name: Name of the layer.
        positions: Number of positions it averages.
        means: Its mean for each image, shape (n, channels).
        largest_sum: As in `Headroom`.
    """

    name: str
    positions: int
    means: np.ndarray
    largest_sum: float


def observed_squeezes(model: keras.Model, feed: Feed, names: Collection[str] | None = None) -> tuple[Squeeze, ...]:
    """Runs a Keras model, and observes its squeezes and global pools.

    Args:
        model: A functional model.
        feed: The inputs, in their order.
        names: Names of the layers to observe. None selects all.

    Returns:
        One entry for each layer, in the order of the model.
    """
    layers = [layer for layer in model.layers if _averages(layer) and (names is None or layer.name in names)]
    if not layers:
        return ()
    inner = keras.Model(model.inputs, [layer.input for layer in layers])
    parts = []
    for start in range(0, rows_of(feed), IMAGES_AT_ONCE):
        values = list(part_of(feed, start, start + IMAGES_AT_ONCE).values())
        maps = keras.tree.flatten(predict_batch(inner, values))
        parts.append([_squeeze(layer, values) for layer, values in zip(layers, maps, strict=True)])
    return tuple(_joined(pieces) for pieces in zip(*parts, strict=True))


def _squeeze(layer: Any, values: np.ndarray) -> Squeeze:
    values = np.asarray(values, "float32")
    values = values if layer.data_format == "channels_last" else np.moveaxis(values, 1, -1)
    window = values.shape[1:3]
    return Squeeze(layer.name, int(np.prod(window)), values.mean((1, 2)), _largest_sum(values, window))


def _joined(pieces: Sequence[Squeeze]) -> Squeeze:
    means = np.concatenate([piece.means for piece in pieces])
    return dataclasses.replace(pieces[0], means=means, largest_sum=max(piece.largest_sum for piece in pieces))


def _averages(layer: Any) -> bool:
    squeezes = isinstance(layer, SqueezeExcite) and "avg" in layer.squeeze and len(layer.input.shape) == 4
    return squeezes or isinstance(layer, keras.layers.GlobalAveragePooling2D)


def _largest_sum(values: np.ndarray, window: tuple[int, int]) -> float:
    largest = 0.0
    for part in (np.maximum(values, 0), np.maximum(-values, 0)):
        if window == values.shape[1:3]:
            largest = max(largest, float(part.sum((1, 2), dtype="float64").max()))
            continue
        # The sums of all windows, as differences of cumulative sums in double precision.
        total = np.pad(part.astype("float64").cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0), (0, 0)))
        high, low = total[:, window[0] :], total[:, : -window[0]]
        sums = high[:, :, window[1] :] - high[:, :, : -window[1]] - low[:, :, window[1] :] + low[:, :, : -window[1]]
        largest = max(largest, float(sums.max()))
    return largest
