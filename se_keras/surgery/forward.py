"""The pass of a model over a dataset, batch by batch, and moments of what it finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from se_keras.batch_prediction import predict_batch
from se_keras.datasets import class_indices, elements, unpacked_arrays
from se_keras.errors import check_count
from se_keras.progress import steps

INFINITE = -1  # tf.data.INFINITE_CARDINALITY


class Moments:
    """The mean and standard deviation of rows that arrive in pieces, exact to float64, in memory for three rows.

    Args:
        width: Numbers per row, at least 1.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self._first = np.zeros(width)
        self._sum = np.zeros(width)
        self._squares = np.zeros(width)

    def add(self, rows: np.ndarray) -> None:
        """Adds rows.

        Args:
            rows: Shape (n, width).
        """
        if not self.count and len(rows):
            self._first = np.asarray(rows[0], "float64")
        distance = rows - self._first  # the deviation of equal rows is then exactly 0
        self.count += len(rows)
        self._sum += distance.sum(0)
        self._squares += np.square(distance).sum(0)

    @property
    def mean(self) -> np.ndarray:
        """Returns the mean of all rows so far, (width,), float64."""
        return self._first + self._sum / max(self.count, 1)

    @property
    def std(self) -> np.ndarray:
        """Returns the population standard deviation, (width,), float64."""
        count = max(self.count, 1)
        return np.sqrt(np.maximum(self._squares / count - np.square(self._sum / count), 0.0))


class Passed(NamedTuple):
    """A batch after the forward pass: its inputs, the flat list of outputs, and the integer labels or None."""

    inputs: Any
    outputs: list[np.ndarray]
    labels: np.ndarray | None


def forward(
    model: keras.Model,
    data: Any,
    labels: Any = None,
    *,
    batch_size: int = 32,
    title: str = "Predicting",
    verbose: str | int = 0,
) -> Iterator[Passed]:
    """Runs a model over a dataset, without keeping the batches.

    Args:
        model: A functional model.
        data: Images in the range of the model's input: an array of shape (n, ...), a dictionary of
            such arrays for several inputs, (arrays, labels), or a finite dataset as in `datasets.elements`,
            of batches x or (x, labels).
        labels: Integer labels or one-hot rows of all images, if `data` contains none. None runs without labels.
        batch_size: Images per batch, if `data` is an array; at least 1.
        title: Title of the progress bar.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Yields:
        Each batch with its outputs; arrays have the batch's true length.

    Raises:
        ValueError: There are no images; the labels have a different length, are given twice or only for
            some batches, or are not classes; or the images do not have the rank of the model's input.
    """
    data, own = unpacked_arrays(data, len(model.inputs[0].shape), len(model.inputs))
    if own is not None and labels is not None:
        raise _given_twice()
    labels = own if labels is None else labels
    given = None if labels is None else class_indices(labels)
    batches, total = _batches(data, given, check_count("batch_size", batch_size), len(model.inputs))
    longest, seen, labeled = 0, 0, 0
    with steps(title, total, verbose=verbose) as advance:
        for inputs, own in batches:
            if count := _length(inputs):
                classes = _labels_of(own, given, seen, count)
                _check_rank(model, inputs)
                longest = max(longest, count)
                outputs = keras.tree.flatten(predict_batch(model, _padded(inputs, longest)))
                yield Passed(inputs, [np.asarray(x)[:count] for x in outputs], classes)
                seen, labeled = seen + count, labeled + (count if classes is not None else 0)
            advance()
    if not seen:
        raise ValueError("The dataset must have at least one image; received none.")
    if given is not None:
        _check_length(len(given), seen, "the dataset")
    if labeled not in (0, seen):
        raise ValueError(f"All batches must have labels, or none; received labels for {labeled} of {seen} images.")


def _labels_of(own: np.ndarray | None, given: np.ndarray | None, start: int, count: int) -> np.ndarray | None:
    """Returns the labels of a batch, its own or those given for all images."""
    if own is not None and given is not None:
        raise _given_twice()
    classes = own if given is None else given[start : start + count]
    if classes is not None:
        _check_length(len(classes), count, "a batch")
    return classes


def _given_twice() -> ValueError:
    return ValueError("Labels must be given once; received `labels` and a dataset that also contains labels.")


def _check_length(labels: int, images: int, where: str) -> None:
    if labels != images:
        raise ValueError(f"There must be one label per image; received {labels} labels for {images} images in {where}.")


def _is_array(data: Any) -> bool:
    return hasattr(data, "shape") and hasattr(data, "__getitem__") and len(data.shape) > 0


def _length(inputs: Any) -> int:
    return len(keras.tree.flatten(inputs)[0])


def _batches(
    data: Any, labels: np.ndarray | None, size: int, inputs: int
) -> tuple[Iterable[tuple[Any, Any]], int | None]:
    """Returns the batches of a dataset with their labels or None, and their number if it is known."""
    if _is_array(data) or (isinstance(data, dict) and data and all(map(_is_array, data.values()))):
        count = int((next(iter(data.values())) if isinstance(data, dict) else data).shape[0])
        if labels is not None:
            _check_length(len(labels), count, "the dataset")

        def batch(start: int) -> Any:
            return keras.tree.map_structure(lambda x: np.asarray(x[start : min(start + size, count)]), data)

        starts = range(0, count, size)
        return ((batch(start), None) for start in starts), len(starts)
    if callable(getattr(data, "cardinality", None)) and int(data.cardinality()) == INFINITE:
        raise ValueError("The dataset must be finite; received one that repeats forever. Pass `data.take(batches)`.")
    found, length = elements(data, inputs)
    return map(_as_arrays, found), length


def _as_arrays(pair: tuple[Any, Any]) -> tuple[Any, np.ndarray | None]:
    inputs, labels = pair
    return keras.tree.map_structure(np.asarray, inputs), None if labels is None else class_indices(labels)


def _check_rank(model: keras.Model, inputs: Any) -> None:
    for symbol, array in zip(model.inputs, keras.tree.flatten(inputs), strict=False):
        if len(symbol.shape) != array.ndim:
            raise ValueError(
                f"Batches for {model.name!r} must have shape {tuple(symbol.shape)}; received {array.shape}. A single "
                "image needs a batch axis: image[None]."
            )


def _padded(inputs: Any, length: int) -> Any:
    """Pads the last, shorter batch, because the model is compiled again for every new shape."""

    def pad(array: np.ndarray) -> np.ndarray:
        missing = length - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array

    return keras.tree.map_structure(pad, inputs)
