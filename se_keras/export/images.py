"""The images that an export is checked on: from a folder, an array or a `tf.data` pipeline, or made up."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.images.folders import has_loose_images, image_files, labelled_files, parts_of, text_of
from se_keras.images.pixels import check_numbers, is_divided
from se_keras.images.reading import separated
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import preprocess, preprocessing_of


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images in the scale of a model's input.

    Args:
        name: What they are: "random" or "real".
        images: Float32 array of shape (n, height, width, channels).
        labels: The right class of each, shape (n,), or None where that is not known.
        folders: How many subfolders the labels were counted from, or None.
        broken: Files that could not be read and were left out, and why.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None = None
    folders: int | None = None
    broken: tuple[tuple[str, str], ...] = ()


def random_images(shape: Sequence[int], count: int) -> ImageSet:
    """Images of noise: half of them of single pixels, half of large patches, as photos have both.

    Args:
        shape: Height, width and channels.
        count: How many, at least 1.

    Returns:
        Values 0 to 255; the same ones at each call.
    """
    rng = np.random.default_rng(0)
    height, width, channels = shape
    coarse = rng.uniform(0, 255, (count, -(-height // 8), -(-width // 8), channels))
    patches = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noise = rng.uniform(0, 255, (count, height, width, channels))
    mixed = np.where((np.arange(count) % 2 == 0)[:, None, None, None], noise, patches)
    return ImageSet("random", mixed.astype("float32"))


def real_images(
    data: Any, labels: Sequence[int] | None, shape: Sequence[int], *, record: Preprocessing, most: int
) -> ImageSet:
    """Reads images and brings them to a model's size.

    Args:
        data: A folder of photos, in subfolders by class or not; an array of shape (n, height,
            width, 3), 0 to 255; or an iterable such as `tf.data` of images, or of (images,
            labels), one by one or in batches. Arrays of the model's own size are taken as
            they are.
        labels: The class index of each image, for a folder in the order of its sorted paths.
            Default: those of the data. The subfolders of a folder are the classes in the
            order of their names.
        shape: Height, width and channels of the model's input.
        record: How photos are resized and cropped.
        most: How many images at most, at least 1; of a folder they are taken evenly.

    Returns:
        The images, and labels where they are known. Files of a folder that cannot be read are left out and listed.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No image, no image that can be read, values out of range, or labels that are
            not one per image.
    """
    if isinstance(data, str | os.PathLike):
        return _from_folder(data, labels, dataclasses.replace(record, size=(shape[0], shape[1])), most)
    if hasattr(data, "ndim"):
        _check_count(labels, len(data))
        images, own = np.asarray(data[:most]), None if labels is None else labels[:most]
    else:
        images, own = _from_batches(data, most)
        if labels is not None:
            own = labels[: len(images)]
    if len(images) == 0:
        raise ValueError("`data` holds no images; give at least one.")
    check_numbers(images)
    _check_count(own, len(images))
    if tuple(images.shape[1:]) != tuple(shape):
        images = preprocess(images, dataclasses.replace(record, size=(shape[0], shape[1])))
    return ImageSet("real", images.astype("float32"), None if own is None else np.asarray(own, "int64"))


def preparation_of(model: keras.Model | None, size: Sequence[int]) -> Preprocessing:
    """How a model's photos are resized and cropped.

    Args:
        model: A Keras model, or None.
        size: Height and width of the input.

    Returns:
        The record inside the model, else the usual one: the central 87.5 %.
    """
    try:
        record = preprocessing_of(model) if model is not None else Preprocessing()
    except ValueError:
        record = Preprocessing()
    return dataclasses.replace(record, size=(size[0], size[1]))


def check_range(images: np.ndarray) -> None:
    """Refuses images of 0 to 1 for a model that takes 0 to 255.

    Args:
        images: Any images.

    Raises:
        ValueError: No value is above 1, and not all are 0.
    """
    if is_divided(images):
        raise ValueError(
            f"The model takes images of 0 to 255; received {images.min():.4g} to {images.max():.4g}. Multiply images "
            "of 0 to 1 by 255."
        )


def takes_pixels(model: keras.Model) -> bool:
    """Whether a model is known to take pixels of 0 to 255."""
    try:
        preprocessing_of(model)
    except ValueError:
        return False
    return True


def left_out(broken: Sequence[tuple[str, str]]) -> str:
    """Says which files were left out.

    Args:
        broken: Files and reasons, at least one.

    Returns:
        One sentence with the first three.
    """
    listed = "; ".join(f"{file!r}: {reason}" for file, reason in broken[:3])
    more = f"; and {len(broken) - 3} more" if broken[3:] else ""
    return f"{len(broken)} of the files cannot be read as images and are left out: {listed}{more}."


def _from_folder(folder: str | os.PathLike, labels: Sequence[int] | None, record: Preprocessing, most: int) -> ImageSet:
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder of images at {os.fspath(folder)!r}.")
    paths, own, folders = _listed(root)
    if not paths:
        raise ValueError(f"The folder {os.fspath(folder)!r} holds no image files.")
    _check_count(labels, len(paths))
    labels, folders = (own, folders) if labels is None else (labels, None)
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))
    readable, faults = separated([paths[i] for i in chosen])
    broken = tuple((text_of(file), reason) for file, reason in faults)
    if not readable:
        raise ValueError(f"The folder {os.fspath(folder)!r} holds no image that can be read: {left_out(broken)}")
    chosen = chosen[readable]
    images = preprocess([paths[i] for i in chosen], record)
    return ImageSet(
        "real", images, None if labels is None else np.asarray([labels[i] for i in chosen], "int64"), folders, broken
    )


def _listed(root: pathlib.Path) -> tuple[list[pathlib.Path], Sequence[int] | None, int | None]:
    """The images of a folder in the order of their paths; their classes and the number of these if it has any."""
    if has_loose_images(root) or parts_of(root) is not None:
        return sorted(root / name for name in image_files(root)), None, None
    files, labels, names = labelled_files(root)
    order = sorted(range(len(files)), key=lambda i: files[i])
    return [files[i] for i in order], [labels[i] for i in order], len(names)


def _from_batches(data: Iterable[Any], most: int) -> tuple[np.ndarray, list[int] | None]:
    images: list[np.ndarray] = []
    labels: list[int] = []
    for element in data:
        batch, own = element if isinstance(element, tuple) else (element, None)
        batch = np.asarray(batch)
        images.extend(batch if batch.ndim == 4 else [batch])
        if own is not None:
            own = np.asarray(own)
            own = own.argmax(-1) if own.ndim == batch.ndim - 2 else own  # one number a class
            labels.extend(np.atleast_1d(own).tolist())
        if len(images) >= most:
            break
    found = np.stack(images[:most]) if images else np.empty((0,))
    return found, labels[:most] or None


def _check_count(labels: Sequence[int] | None, count: int) -> None:
    if labels is not None and len(labels) != count:
        raise ValueError(f"`labels` must be one an image; received {len(labels)} for {count} images.")
