"""Images to check an export on: from files, arrays, and datasets."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from PIL import Image

from se_keras.datasets import class_indices, elements, known_classes, unpacked_arrays
from se_keras.export.inputs import Feed, Samples
from se_keras.images.folders import has_loose_images, image_files, labeled_files, parts_of, text_of, unpaired_parts
from se_keras.images.pixels import check_numbers, is_divided, to_rgb
from se_keras.images.reading import separated
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import preprocess, stored_preprocessing
from se_keras.spacing import evenly

UNSTATED_PIXELS = (
    "The model's first layers do not show the range of its images, so photos are passed to it as pixels from 0 to 255. "
    "If it expects normalized images, put its normalization in front of it (`se_keras.layers.ImagePreprocessing`), or "
    "pass arrays as the model expects them."
)
DIVIDED = (
    "The model's first layers scale pixels from 0 to 255, and the images range from {:.4g} to {:.4g}. If they were "
    "divided by 255, multiply them."
)
TRAINING, VALIDATION = 0, 1  # parts of a folder
_OVERSHOOT = 50  # which bicubic resizing adds at sharp edges
_NORMALIZED = 10  # standard deviations, which normalized pixels do not exceed


def real_images(
    data: Any,
    labels: Sequence[int] | None,
    shape: Sequence[int],
    *,
    record: Preprocessing,
    most: int,
    class_names: Sequence[str] = (),
) -> Samples:
    """Reads images and resizes them to a model's input size.

    Args:
        data: A folder of photos, with or without subfolders by class; a list of image files or PIL images; an array
            of shape (n, height, width, 3), 0 to 255, or (array, labels); or a dataset as in `datasets.elements`, of
            images or (images, labels), one at a time or in batches. Arrays that have the model's input size already are
            not resized.
        labels: Integer label or one-hot row of each image, for a folder in the order of its sorted paths.
            Default: those of the data. The subfolders of a folder are the classes, in the order of
            `class_names` if these are their names, else in sorted order.
        shape: Height, width, and channels of the model's input.
        record: How to resize and crop photos.
        most: Maximum number of images, at least 1: evenly spaced ones of files or an array, the first of a dataset.
        class_names: The model's class names. Subfolders with these names, in any order, get their labels.

    Returns:
        The images, and labels if known. Files in a folder that cannot be read are skipped and listed.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: No image, no readable image, values out of range, or a number of labels other
            than one per image.
    """
    record = dataclasses.replace(record, size=(shape[0], shape[1]))
    given = None if labels is None else class_indices(labels).tolist()
    if isinstance(data, str | os.PathLike):
        return _from_folder(data, given, record, most, class_names)
    if _are_files(data):
        return _from_files(data, given, (), record, most, "`data`")
    data, own = unpacked_arrays(data, len(shape) + 1)
    given = given if own is None or given is not None else known_classes(own, is_batch=True)
    if getattr(data, "ndim", 0):
        check_label_count(given, len(data))
        chosen = evenly(len(data), most)
        images = [np.asarray(data[place]) for place in chosen]
        kept = None if given is None else [given[place] for place in chosen]
    else:
        images, kept = _from_elements(data, most)
        kept = kept if given is None else given[:most]
    if not images:
        raise ValueError("`data` must hold at least one image; received none.")
    check_label_count(kept, len(images))
    feed: Feed = {"images": _fitted(images, tuple(shape), record)}
    return Samples("real", feed, None if kept is None else np.asarray(kept, "int64"))


def _fitted(images: Sequence[np.ndarray], shape: tuple[int, ...], record: Preprocessing) -> np.ndarray:
    """Returns images of the model's input size, float32; those that already have it are not resized."""
    for image in images:
        check_numbers(image)
    is_fitting = all(image.shape == shape for image in images)
    return (np.stack(images) if is_fitting else preprocess(images, record)).astype("float32")


def preparation_of(
    model: keras.Model | None, size: Sequence[int], resizing: Mapping[str, Any] = MappingProxyType({})
) -> Preprocessing:
    """Returns how to resize and crop photos for a model.

    Args:
        model: A Keras model, or None.
        size: Height and width of the input.
        resizing: What an exported file states, as `Runner.resizing`.

    Returns:
        The record inside the model, or what the file states, or else the default: the central 87.5%.
    """
    own = None if model is None else stored_preprocessing(model)
    if own is None and {"crop_pct", "interpolation"} <= resizing.keys():
        own = Preprocessing(crop=resizing["crop_pct"], interpolation=resizing["interpolation"])
    return dataclasses.replace(own or Preprocessing(), size=(size[0], size[1]))


def check_range(images: np.ndarray) -> None:
    """Rejects images in another range for a model that expects 0 to 255.

    Args:
        images: Any images.

    Raises:
        ValueError: The values are divided by 255, normalized, or beyond what resizing adds to 0 and 255.
    """
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    is_normalized = low < 0 and high <= _NORMALIZED
    if is_divided(images) or is_normalized or low < -_OVERSHOOT or high > 255 + _OVERSHOOT:
        remedy = "Multiply images in the range 0 to 1 by 255." if low >= 0 and high <= 1 else "Do not normalize them."
        raise ValueError(f"The model expects images in the range 0 to 255; received {low:.4g} to {high:.4g}. {remedy}")


def range_note(images: np.ndarray) -> str:
    """Returns a remark on images that seem to be divided by 255, for a model whose first layers divide them; or ""."""
    return DIVIDED.format(float(images.min()), float(images.max())) if is_divided(images) else ""


def left_out(broken: Sequence[tuple[str, str]]) -> str:
    """Describes the files that were skipped.

    Args:
        broken: Files and reasons, at least one.

    Returns:
        One sentence that names the first three.
    """
    listed = "; ".join(f"{file!r}: {reason}" for file, reason in broken[:3])
    more = f"; and {len(broken) - 3} more" if broken[3:] else ""
    return f"{len(broken)} of the files cannot be read as images and are left out: {listed}{more}."


def _from_folder(
    folder: str | os.PathLike,
    labels: Sequence[int] | None,
    record: Preprocessing,
    most: int,
    class_names: Sequence[str],
) -> Samples:
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder of images at {os.fspath(folder)!r}.")
    paths, own, folders = _listed(root, class_names)
    if not paths:
        raise ValueError(f"The folder {os.fspath(folder)!r} holds no image files.")
    labels, folders = (own, folders) if labels is None else (labels, ())
    return _from_files(paths, labels, folders, record, most, f"The folder {os.fspath(folder)!r}")


def part_of_folder(data: Any, part: int) -> Any:
    """Returns a part of a folder that has both, such as `train` and `val`; other data unchanged.

    Args:
        data: As in `real_images`.
        part: `TRAINING` or `VALIDATION`.

    Returns:
        The path of the part, or `data`.
    """
    parts = parts_of(data) if isinstance(data, str | os.PathLike) else None
    return data if parts is None else parts[part]


def is_of_files(data: Any) -> bool:
    """Returns whether the images of `real_images` are photos, not arrays."""
    if isinstance(data, str | os.PathLike):
        return not os.fspath(data).endswith(".npz")
    return _are_files(data) or (isinstance(data, list | tuple) and bool(data) and isinstance(data[0], Image.Image))


def _are_files(data: Any) -> bool:
    return isinstance(data, list | tuple) and bool(data) and all(isinstance(one, str | os.PathLike) for one in data)


def _from_files(
    paths: Sequence[str | os.PathLike],
    labels: Sequence[int] | None,
    folders: tuple[str, ...],
    record: Preprocessing,
    most: int,
    what: str,
) -> Samples:
    check_label_count(labels, len(paths))
    chosen = evenly(len(paths), most)
    readable, faults = separated([paths[i] for i in chosen])
    broken = tuple((text_of(file), reason) for file, reason in faults)
    if not readable:
        raise ValueError(f"{what} holds no image that can be read: {left_out(broken)}")
    chosen = [chosen[place] for place in readable]
    images = preprocess([paths[i] for i in chosen], record)
    kept = None if labels is None else np.asarray([labels[i] for i in chosen], "int64")
    return Samples("real", {"images": images}, kept, folders, broken)


def _listed(
    root: pathlib.Path, class_names: Sequence[str]
) -> tuple[list[pathlib.Path], Sequence[int] | None, tuple[str, ...]]:
    """Lists a folder's images in the order of their paths, with their labels and the names of the classes, if any."""
    if has_loose_images(root) or parts_of(root) is not None or unpaired_parts(root):
        return sorted(root / name for name in image_files(root)), None, ()
    files, labels, names = labeled_files(root)
    if sorted(class_names) == names:
        labels = [class_names.index(names[label]) for label in labels]
    order = sorted(range(len(files)), key=lambda i: files[i])
    return [files[i] for i in order], [labels[i] for i in order], tuple(names)


def _from_elements(data: Iterable[Any], most: int) -> tuple[list[np.ndarray], list[int] | None]:
    images: list[np.ndarray] = []
    labels: list[int] = []
    found, _ = elements(data)
    for x, y in found:
        if isinstance(x, Mapping):
            raise ValueError(
                "A dataset for a model of images must hold images or (images, labels); received dictionaries with the "
                f"keys {', '.join(map(repr, x))}. Map them first."
            )
        array = np.asarray(to_rgb(x) if isinstance(x, Image.Image) else x)
        is_batch = array.ndim == 4
        images.extend(array if is_batch else [array])
        labels.extend(known_classes(y, is_batch=is_batch) or [])
        if len(images) >= most:
            break
    return images[:most], labels[:most] or None


def check_label_count(labels: Sequence[int] | None, count: int, *, unit: str = "image") -> None:
    """Rejects labels unless there is one per sample.

    Args:
        labels: The labels, or None.
        count: Number of samples.
        unit: What one sample is, for the message.

    Raises:
        ValueError: The numbers differ.
    """
    if labels is not None and len(labels) != count:
        raise ValueError(f"`labels` must have one entry per {unit}; received {len(labels)} for {count} {unit}s.")
