"""Inputs of any kind to calibrate or check an export with: arrays by name, `.npz` files, datasets, and photos."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.array_files import read_arrays
from se_keras.datasets import class_indices, elements, known_classes, unpacked_arrays
from se_keras.export.images import check_label_count, real_images
from se_keras.export.inputs import IMAGE, OPEN_SIZE, PIXELS, TOKENS, Feed, Input, Samples, in_order, rows_of
from se_keras.images.record import Preprocessing

LABELS = "labels"  # an array of an .npz file that is no input


def real_samples(
    data: Any,
    labels: Sequence[int] | None,
    inputs: Sequence[Input],
    *,
    record: Preprocessing,
    most: int,
    class_names: Sequence[str] = (),
) -> Samples:
    """Reads the inputs of a model.

    Args:
        data: For a single input of images, as in `real_images`. Otherwise arrays with one row per sample: a dictionary
            by the names of the inputs, a tuple in their order, or for a single input the array, each also with its
            labels as (inputs, labels); or a dataset as in `datasets.elements` of these, one sample at a time or in
            batches. For any model, an `.npz` file with an array per input, and "labels" if they are known.
        labels: Integer label or one-hot row of each sample. Default: those of the data.
        inputs: The inputs of the model.
        record: How to resize and crop photos.
        most: Maximum number of samples, at least 1: evenly spaced ones of arrays, the first of a dataset.
        class_names: As in `real_images`.

    Returns:
        The samples, and labels if known.

    Raises:
        FileNotFoundError: The file or folder does not exist.
        ValueError: As in `real_images`; or the names, shapes, numbers of rows, or values do not fit the inputs.
    """
    if isinstance(data, str | os.PathLike) and os.fspath(data).endswith(".npz"):
        data, labels = _from_file(data, labels, inputs)
    if is_of_images(inputs):
        shape = [size or OPEN_SIZE for size in inputs[0].shape]
        if isinstance(data, Mapping):
            (data,) = in_order(inputs, data)
        return real_images(data, labels, shape, record=record, most=most, class_names=class_names)
    feed, own = _collected(data, inputs, most)
    given = own if labels is None else class_indices(labels).tolist()
    _check_rows(feed)
    check_label_count(given, rows_of(feed), unit="sample")
    kept = None if given is None else np.asarray(given, "int64")
    return Samples("real", _checked(feed, inputs), kept, unit="samples").few(most)


def is_of_images(inputs: Sequence[Input]) -> bool:
    """Returns whether a model takes images and nothing else."""
    return len(inputs) == 1 and inputs[0].kind == IMAGE


def is_of_pixels(inputs: Sequence[Input]) -> bool:
    """Returns whether a model takes images and nothing else, and states that their pixels are from 0 to 255."""
    return is_of_images(inputs) and (inputs[0].low, inputs[0].high) == PIXELS


def _from_file(path: str | os.PathLike, labels: Sequence[int] | None, inputs: Sequence[Input]) -> tuple[Any, Any]:
    arrays = read_arrays(path)
    own = None if LABELS in {one.name for one in inputs} else arrays.pop(LABELS, None)
    return arrays, own if labels is None else labels


def _collected(data: Any, inputs: Sequence[Input], most: int) -> tuple[Feed, Any]:
    """Returns the value of each input, and the labels if the data has them."""
    names = [one.name for one in inputs]
    if isinstance(data, str | os.PathLike):
        raise ValueError(
            f"`data` for the inputs {', '.join(map(repr, names))} must be an .npz file with an array of each name; "
            f"received {os.fspath(data)!r}."
        )
    if isinstance(data, Mapping) or (len(inputs) == 1 and getattr(data, "ndim", 0) > 0):
        return dict(zip(names, _values(data, inputs), strict=True)), None
    if isinstance(data, tuple | list) and len(data) == len(inputs) > 1 and _is_batch(data, inputs):
        return dict(zip(names, map(np.asarray, data), strict=True)), None
    x, labels = unpacked_arrays(data, len(inputs[0].shape) + 1, len(inputs))
    if labels is not None:
        return dict(zip(names, _values(x, inputs), strict=True)), known_classes(labels, is_batch=True)
    return _from_elements(data, inputs, most)


def _from_elements(data: Iterable[Any], inputs: Sequence[Input], most: int) -> tuple[Feed, Any]:
    rows: list[list[np.ndarray]] = [[] for _ in inputs]
    labels: list[int] = []
    found, _ = elements(data, len(inputs))
    for x, y in found:
        values = _values(x, inputs)
        is_batch = _is_batch(values, inputs)
        for column, value in zip(rows, values, strict=True):
            column.extend(value if is_batch else [value])
        labels.extend(known_classes(y, is_batch=is_batch) or [])
        if len(rows[0]) >= most:
            break
    if not rows[0]:
        raise ValueError("`data` must hold at least one sample; received none.")
    feed = {one.name: np.stack(column) for one, column in zip(inputs, rows, strict=True)}
    return feed, labels or None


def _values(values: Any, inputs: Sequence[Input]) -> list[np.ndarray]:
    """Returns one array per input."""
    if isinstance(values, Mapping):
        return [np.asarray(value) for value in in_order(inputs, values)]
    if len(inputs) == 1:
        return [np.asarray(values)]
    if not isinstance(values, tuple | list) or len(values) != len(inputs):
        names = ", ".join(repr(one.name) for one in inputs)
        raise ValueError(
            f"`data` must hold a value for each of the inputs {names}, as a dictionary or a tuple; received "
            f"{type(values).__name__}."
        )
    return [np.asarray(value) for value in values]


def _is_batch(values: Sequence[Any], inputs: Sequence[Input]) -> bool:
    return np.ndim(values[0]) == len(inputs[0].shape) + 1


def _check_rows(feed: Feed) -> None:
    counts = {name: len(values) for name, values in feed.items()}
    if len(set(counts.values())) > 1 or not all(counts.values()):
        listed = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise ValueError(f"`data` must have the same number of samples for each input, at least 1; received {listed}.")


def _checked(feed: Feed, inputs: Sequence[Input]) -> dict[str, np.ndarray]:
    """Returns the values in the dtypes of the inputs, floats as float32."""
    return {one.name: _fitting(one, feed[one.name]) for one in inputs}


def _fitting(one: Input, values: np.ndarray) -> np.ndarray:
    shape = tuple(values.shape[1:])
    is_same = len(shape) == len(one.shape) and all(b in (None, a) for a, b in zip(shape, one.shape, strict=True))
    if not is_same:
        raise ValueError(f"The input {one.name!r} has shape {one.shape} per sample; received {shape}.")
    if values.dtype.kind not in "iufb" or not np.isfinite(values).all():
        raise ValueError(f"The input {one.name!r} takes finite numbers; received NaN, infinity, or text.")
    if one.kind == TOKENS and one.high is not None and not 0 <= values.min() <= values.max() <= one.high:
        raise ValueError(
            f"The input {one.name!r} takes indices from 0 to {one.high:g}, the rows of its embedding; received "
            f"{values.min():g} to {values.max():g}."
        )
    return values.astype(one.dtype if np.dtype(one.dtype).kind in "iub" else "float32")


def with_ranges_of(inputs: Sequence[Input], feed: Feed) -> tuple[Input, ...]:
    """Returns the inputs with the ranges of samples where the model states none.

    Args:
        inputs: The inputs.
        feed: Samples, in the order of the inputs.

    Returns:
        The inputs, in the same order.
    """
    pairs = zip(inputs, feed.values(), strict=True)
    return tuple(
        one if one.low is not None else dataclasses.replace(one, low=float(values.min()), high=float(values.max()))
        for one, values in pairs
    )
