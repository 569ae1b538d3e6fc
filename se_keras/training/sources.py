"""Sources of labeled images for training and testing."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np

from se_keras.array_files import read_arrays
from se_keras.class_names import check_class_names
from se_keras.export.images import left_out
from se_keras.images.folders import SUFFIXES, class_folders, has_loose_images, labeled_files, parts_of, text_of
from se_keras.images.reading import load_image, separated
from se_keras.training.holdout import check_classes, held_back
from se_keras.training.tfds_images import PREFIX, open_tfds
from se_keras.training.tfrecord import open_records, record_files


@dataclasses.dataclass(frozen=True)
class Sample:
    """A small labeled set of real images.

    Args:
        x_train: RGB images for training, uint8, 0 to 255, shape (n, height, width, 3).
        y_train: Their integer labels, uint8, shape (n,).
        x_test: Images for testing, like `x_train`.
        y_test: Their integer labels.
        class_names: Name of each class, in the order of the labels.
        source: Source of the images.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    source: str


def load_sample() -> Sample:
    """Loads the images bundled with the package: 100 training and 50 test images per class of CIFAR-10.

    Returns:
        A `Sample` of 1,000 and 500 images of 32x32 pixels, lossless.

    Example:

    >>> load_sample().x_train.shape
    (1000, 32, 32, 3)
    """
    file = importlib.resources.files("se_keras").joinpath("data/cifar10_sample.npz")
    with file.open("rb") as stream, np.load(stream) as arrays:
        return Sample(
            x_train=arrays["x_train"],
            y_train=arrays["y_train"],
            x_test=arrays["x_test"],
            y_test=arrays["y_test"],
            class_names=tuple(map(str, arrays["class_names"])),
            source=str(arrays["source"]),
        )


class ImageSource(Protocol):
    """Labeled images that can be read in any order.

    Attributes:
        labels: Integer label of each image, int64, shape (n,).
        class_names: Name of each class, in the order of the labels.
        fingerprint: A string that changes when the images or labels change.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        """Returns the number of images."""

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns one RGB image: uint8, 0 to 255, shape (height, width, 3)."""


class ArraySource:
    """A source of images in memory.

    Args:
        images: RGB images, uint8, 0 to 255, shape (n, height, width, 3).
        labels: Integer labels, shape (n,) or (n, 1).
        class_names: Name of each class. None uses their numbers.

    Raises:
        ValueError: The dtype or shape is wrong, there is no image, or a label is outside the classes.
    """

    def __init__(self, images: np.ndarray, labels: Any, class_names: Sequence[str] | None = None) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                "Images in an array must be uint8, 0 to 255, of shape (n, height, width, 3); received "
                f"{images.dtype} of shape {images.shape}."
            )
        labels = np.asarray(labels)
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"Labels must be one integer per image; received {labels.dtype} of shape {labels.shape} for "
                f"{len(images)} images."
            )
        if len(images) == 0:
            raise ValueError("There is no image in the array; at least one is needed.")
        names = tuple(map(str, range(int(labels.max()) + 1) if class_names is None else class_names))
        if labels.min() < 0 or labels.max() >= len(names):
            raise ValueError(
                f"Labels must be from 0 to {len(names) - 1}, because there are {len(names)} classes; received "
                f"{labels.min()} to {labels.max()}."
            )
        self._images = images
        self.labels: np.ndarray = labels.astype(np.int64)
        self.class_names = names
        digest = hashlib.sha256(self.labels.tobytes() + repr((images.shape, names)).encode())
        for start in range(0, len(images), 1024):  # together, because single images take longer to hash
            digest.update(np.ascontiguousarray(images[start : start + 1024]))
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns one image, uint8, shape (height, width, 3)."""
        return self._images[index]


class FolderSource:
    """A source of image files in one folder per class.

    Args:
        files: Paths of the images.
        labels: Integer label of each image.
        class_names: Name of each class.
    """

    def __init__(self, files: Sequence[pathlib.Path], labels: Sequence[int], class_names: Sequence[str]) -> None:
        self.files = tuple(files)
        self.labels = np.asarray(labels, np.int64)
        self.class_names = tuple(class_names)
        root = os.path.commonpath([file.parent for file in self.files]) if self.files else ""
        listing = "\n".join(
            f"{label} {os.path.relpath(file, root)} {file.stat().st_size}"
            for file, label in zip(self.files, self.labels, strict=True)
        )
        self.fingerprint = hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns one image, upright RGB, uint8, shape (height, width, 3)."""
        return np.asarray(load_image(self.files[index]))


@dataclasses.dataclass(frozen=True)
class Data:
    """Images for training and validation.

    Args:
        name: The name that the user gave.
        train: Images for training.
        validation: Images for validation, with the same classes.
        broken: Files that were left out, each with the reason.

    Raises:
        ValueError: Two classes have the same name.
    """

    name: str
    train: ImageSource
    validation: ImageSource
    broken: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        names = self.train.class_names
        check_class_names(names, len(names), what=f"the class names of {self.name!r}")


def open_data(
    name: str | os.PathLike,
    *,
    validation_split: float = 0.2,
    strict: bool = False,
    verbose: str | int = "auto",
) -> Data:
    """Opens labeled images by name, path, or dataset.

    Args:
        name: One of:

            - a folder with one folder of images per class, or with such folders in `train` and `val`
              (or `validation`, `valid`, `test`);
            - a folder of TFRecord files, or one such file: see `tfrecord.open_records`;
            - an `.npz` file with `x_train`, `y_train`, `x_test`, `y_test`, and optionally `class_names`;
            - "sample" for the bundled images;
            - "cifar10" or "cifar100", which `keras.datasets` downloads;
            - "tfds/NAME" for a dataset of TensorFlow Datasets: see `tfds_images.open_tfds`.
        validation_split: Approximate fraction of each class to hold back if the folder or dataset has no validation
            part; between 0 and 1. See `holdout.held_back`.
        strict: Whether an unreadable image file or record is an error instead of being left out.
        verbose: "auto" or 1 to show a progress bar while the files are checked, 0 to show none.

    Returns:
        The `Data`.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ImportError: "tfds/..." needs TensorFlow Datasets, which is not installed.
        ValueError: There are no images or fewer than two classes, validation and training have
            different classes, a label is outside the classes, a TFRecord file is damaged, the dataset does
            not exist, or a file is broken under `strict`.
    """
    path = pathlib.Path(name)
    if record_files(path):
        parts = open_records(path, validation_split=validation_split, strict=strict, verbose=verbose)
        return Data(os.fspath(path), *parts)
    if path.is_dir():
        return _open_folder(path, validation_split, strict, verbose)
    if path.suffix == ".npz":
        return _open_npz(path, str(name))
    if str(name) == "sample":
        sample = load_sample()
        return _of_arrays("sample", sample.x_train, sample.y_train, sample.x_test, sample.y_test, sample.class_names)
    if str(name).startswith(PREFIX):
        tfds_name = str(name).removeprefix(PREFIX)
        return Data(
            str(name),
            *open_tfds(tfds_name, validation_split=validation_split, strict=strict, verbose=verbose),
        )
    dataset = getattr(keras.datasets, str(name), None)
    if dataset is not None and str(name).startswith("cifar"):
        (x_train, y_train), (x_test, y_test) = dataset.load_data()
        names = load_sample().class_names if name == "cifar10" else None
        return _of_arrays(str(name), x_train, y_train, x_test, y_test, names)
    raise FileNotFoundError(
        "Data must be a folder of images or TFRecord files, an .npz file, 'sample', 'cifar10', 'cifar100', or "
        f"'tfds/NAME'; received {os.fspath(name)!r}."
    )


def _open_npz(path: pathlib.Path, name: str) -> Data:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file at {os.fspath(path)!r}.")
    needed = ("x_train", "y_train", "x_test", "y_test")
    arrays = read_arrays(path, (*needed, "class_names"))
    missing = [array for array in needed if array not in arrays]
    if missing:
        raise ValueError(
            f"{os.fspath(path)!r} must hold x_train, y_train, x_test, and y_test; {', '.join(missing)} is missing."
        )
    try:
        x_train, y_train, x_test, y_test = (arrays[array] for array in needed)
        class_names = [str(given) for given in arrays["class_names"]] if "class_names" in arrays else None
        return _of_arrays(name, x_train, y_train, x_test, y_test, class_names)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)!r}: {error}") from error


def _of_arrays(
    name: str, x_train: Any, y_train: Any, x_test: Any, y_test: Any, class_names: Sequence[str] | None
) -> Data:
    train = ArraySource(x_train, y_train, class_names)
    return Data(name, train, ArraySource(x_test, y_test, train.class_names))


def _open_folder(path: pathlib.Path, validation_split: float, strict: bool, verbose: str | int) -> Data:
    parts = parts_of(path)
    if parts is None:
        files, labels, names = _listing(path)
        files, labels, broken = _readable(files, labels, strict, verbose)
        train, validation = _split(path, files, labels, names, validation_split)
        _check_classes(train, "training", broken)
        _check_classes(validation, "validation", broken)
        return Data(os.fspath(path), train, validation, broken)
    sources: list[FolderSource] = []
    faults: list[tuple[str, str]] = []
    train_folder, validation_folder = parts
    train_names = class_folders(train_folder)
    names = class_folders(validation_folder)
    if names != train_names:
        only_train, only_held = sorted(set(train_names) - set(names)), sorted(set(names) - set(train_names))
        raise ValueError(
            f"The classes of {os.fspath(train_folder)!r} and {os.fspath(validation_folder)!r} must be the same; found "
            f"only in the first: {', '.join(only_train) or 'none'}; only in the second: "
            f"{', '.join(only_held) or 'none'}."
        )
    for folder in parts:
        files, labels, names = _listing(folder)
        files, labels, bad = _readable(files, labels, strict, verbose)
        faults.extend(bad)
        sources.append(FolderSource(files, labels, names))
        _check_classes(sources[-1], os.fspath(folder), bad)
    return Data(os.fspath(path), sources[0], sources[1], tuple(faults))


def _listing(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[int], list[str]]:
    files, labels, names = labeled_files(folder)
    if len(names) < 2:
        above = " It holds images itself: pass the folder above it, if it is one class of several."
        hint = above if has_loose_images(folder) else ""
        raise ValueError(
            f"{os.fspath(folder)!r} must hold one folder of images for each of at least two classes; found "
            f"{len(names)}: {', '.join(names) or 'none'}.{hint}"
        )
    if not files:
        raise ValueError(f"There is no image in the class folders of {os.fspath(folder)!r} ({', '.join(SUFFIXES)}).")
    return files, labels, names


def _readable(
    files: list[pathlib.Path], labels: list[int], strict: bool, verbose: str | int
) -> tuple[list[pathlib.Path], list[int], tuple[tuple[str, str], ...]]:
    readable, faults = separated(files, verbose=verbose)
    broken = tuple((text_of(file), reason) for file, reason in faults)
    if broken and strict:
        listed = "; ".join(f"{file}: {reason}" for file, reason in broken[:5])
        raise ValueError(f"{len(broken)} of {len(files)} files cannot be read as images: {listed}")
    return [files[index] for index in readable], [labels[index] for index in readable], broken


def _split(
    root: pathlib.Path, files: list[pathlib.Path], labels: list[int], names: list[str], share: float
) -> tuple[FolderSource, FolderSource]:
    # Paths, because the files of each class, or of each folder in it, may be numbered in the same way.
    keys = [file.relative_to(root).as_posix() for file in files]
    parts = held_back(keys, np.asarray(labels, np.int64), len(names), share)
    train, validation = (FolderSource([files[i] for i in part], [labels[i] for i in part], names) for part in parts)
    return train, validation


def _check_classes(source: FolderSource, where: str, broken: Sequence[tuple[str, str]]) -> None:
    try:
        check_classes(source.labels, source.class_names, where)
    except ValueError as error:
        raise ValueError(f"{error} {left_out(broken)}" if broken else f"{error}") from error
