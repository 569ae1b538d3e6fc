"""Datasets in the forms that `fit` takes, and their labels."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np


def elements(data: Any, inputs: int = 1) -> tuple[Iterator[tuple[Any, Any]], int | None]:
    """Iterates over a dataset once.

    Args:
        data: A `keras.utils.PyDataset`, a `tf.data.Dataset`, a PyTorch `DataLoader`, or any other iterable of x, (x,
            y), or (x, y, sample_weight), as tuples or lists.
        inputs: Number of arrays in x.

    Returns:
        An iterator over (x, y), with None where there is no y, and the number of elements if it is known.

    Raises:
        ValueError: The type is another one, or a PyDataset does not state its number of batches.
    """
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError("The dataset must be finite; received a PyDataset whose num_batches is None.")
        return (unpacked(data[index], inputs) for index in range(data.num_batches)), data.num_batches
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Mapping) or getattr(data, "shape", None) == ():
        raise ValueError(
            "`data` must be arrays, a PyDataset, a tf.data.Dataset, a DataLoader, or another iterable of batches; "
            f"received {type(data).__name__}."
        )
    length = operator.length_hint(data, -1)
    return (unpacked(element, inputs) for element in data), None if length < 0 else length


def unpacked(element: Any, inputs: int = 1) -> tuple[Any, Any]:
    """Splits an element of a dataset as Keras does, and leaves samples that are lists of numbers whole.

    Args:
        element: x, (x, y), or (x, y, sample_weight), a tuple or a list.
        inputs: Number of arrays in x. A tuple of that many arrays is x.

    Returns:
        x, and y or None.
    """
    if isinstance(element, tuple | list) and 1 <= len(element) <= 3:
        arrays = keras.tree.flatten(element[0])
        if len(arrays) == inputs and (isinstance(element, tuple) or all(map(np.ndim, arrays))):
            return element[0], element[1] if len(element) > 1 else None
    return element, None


def unpacked_arrays(data: Any, rank: int, inputs: int = 1) -> tuple[Any, Any]:
    """Splits whole arrays with their labels, as `fit` takes them for validation.

    Args:
        data: (x, y) or (x, y, sample_weight), or any other dataset.
        rank: Number of axes of a batch of the first input.
        inputs: Number of arrays in x.

    Returns:
        x and y, or the dataset and None.
    """
    if isinstance(data, tuple):
        x, y = unpacked(data, inputs)
        is_batch = isinstance(x, Mapping) or np.ndim(keras.tree.flatten(x)[0]) == rank
        if is_batch and np.ndim(y) in (1, 2):
            return x, y
    return data, None


def class_indices(labels: Any) -> np.ndarray:
    """Returns integer labels from any usual form of labels.

    Args:
        labels: Integers of shape (n,) or (n, 1), or one-hot rows of shape (n, classes), which may be smoothed or mixed.

    Returns:
        The integer labels, shape (n,), int64.

    Raises:
        ValueError: The labels have another form.
    """
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "biuf" and _are_shares(array):
        return array.argmax(1)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    is_numeric = array.ndim == 1 and array.dtype.kind in "biuf"
    if not is_numeric or np.any(array != np.floor(array)) or np.any(array < 0):
        shown = repr(array.ravel()[:3].tolist())
        raise ValueError(
            "Labels must be nonnegative integers of shape (n,), or one-hot rows of shape (n, classes); received shape "
            f"{array.shape}, dtype {array.dtype}, beginning {shown}. If they are not classes, pass the images alone."
        )
    return array.astype("int64")


def _are_shares(rows: np.ndarray) -> bool:
    """Returns whether rows are one-hot or shares of classes, unlike several labels per image or coordinates."""
    return bool(np.all(rows >= 0) and np.allclose(rows.sum(1, dtype="float64"), 1, atol=1e-2))


def known_classes(y: Any, *, is_batch: bool) -> list[int] | None:
    """Returns the integer labels of an element of a dataset, if it has any.

    Args:
        y: Labels as in `class_indices`, of a batch or of one sample; anything else, such as the targets of a regression
            or of several outputs; or None.
        is_batch: Whether y is of a batch.

    Returns:
        The integer labels, or None if y holds no classes.
    """
    if y is None or isinstance(y, Mapping) or (isinstance(y, tuple | list) and any(map(np.ndim, y))):
        return None
    try:
        return class_indices(np.asarray(y) if is_batch else np.asarray(y)[None]).tolist()
    except ValueError:
        return None
