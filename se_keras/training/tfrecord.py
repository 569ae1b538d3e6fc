"""Folders of TFRecord files, a common format of ImageNet: images in any order, without TensorFlow.

A TFRecord file can only be read from the beginning. It is read once, see `record_index`; after that, an image takes one
read of its own bytes.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from se_keras.class_names_file import class_names_in
from se_keras.images import reading
from se_keras.training.holdout import check_classes, check_labels, held_back
from se_keras.training.record_index import NAME_FEATURES, index_of

_RECORD_FILE = re.compile(r"\.tfrecords?$|(\.tfrecords?|(^|[-_.])(train|validation|val|test))-\d{5}-of-\d{5}$")
_PART = re.compile(r"(?:^|[^a-z])(train|validation|val|test)(?![a-z])")
_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})$")


class RecordSource:
    """A source of images in TFRecord files.

    Args:
        files: The files.
        places: For each image, the index of its file, its position in the file, and its size in bytes,
            int64, shape (n, 3).
        labels: Integer label of each image, shape (n,).
        class_names: Name of each class.
    """

    def __init__(
        self, files: Sequence[pathlib.Path], places: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
    ) -> None:
        self.files = tuple(files)
        self._places = places
        self.labels: np.ndarray = labels.astype(np.int64)
        self.class_names = tuple(class_names)
        digest = hashlib.sha256(np.ascontiguousarray(places).tobytes() + self.labels.tobytes())
        digest.update("\n".join((*(file.name for file in self.files), *self.class_names)).encode())
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns one image, upright RGB, uint8, shape (height, width, 3)."""
        number, begin, size = map(int, self._places[index])
        file = self.files[number]
        with open(file, "rb") as stream:
            stream.seek(begin)
            encoded = stream.read(size)
        return reading.decode(encoded, f"{os.fspath(file)!r} at byte {begin}")


def record_files(path: str | os.PathLike) -> list[pathlib.Path]:
    """Lists the TFRecord files of a folder.

    Args:
        path: A folder with files such as `train-00000-of-01024`, `flowers-test.tfrecord-00000-of-00001`, or
            `birds.tfrecord`, or with such files in folders `train`, `validation`, `val`, or `test`; or one such file.

    Returns:
        The files in the order of their paths; [] if there are none.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return [path] if _RECORD_FILE.search(path.name) else []
    if not path.is_dir():
        return []
    folders = [path, *(child for child in path.iterdir() if child.is_dir() and _PART.fullmatch(child.name))]
    files = (file for folder in folders for file in folder.iterdir())
    named = (file for file in files if _RECORD_FILE.search(file.name) and not file.name.startswith("."))
    return sorted(file for file in named if file.is_file())


def open_records(
    path: str | os.PathLike,
    *,
    validation_split: float,
    strict: bool,
    verbose: str | int,
) -> tuple[RecordSource, RecordSource, tuple[tuple[str, str], ...]]:
    """Opens a folder of TFRecord files, or one file.

    Each record is a `tf.train.Example` with the bytes of an image file (`image/encoded` or `image`) and a label
    (`image/class/label` or `label`). Labels start at 0, or at 1, as in ImageNet, where 0 is reserved for a background
    that no image has: the lowest label of a training image is the first class. Class names are the lines of a
    `labels.txt` (or `label.labels.txt`) next to the files, else those in the records (`image/class/text`, else
    `image/class/synset`), else the numbers from 0.

    Args:
        path: See `record_files`.
        validation_split: Approximate fraction of each class to hold back if no file is named `validation`, `val`, or
            `test`; these are looked for in this order.
        strict: Whether a record without a readable image and a label is an error instead of being left out.
        verbose: "auto" or 1 to show a progress bar while the files are read for the first time, 0 to show none.

    Returns:
        Images for training, images for validation, and the records that were left out, each with the reason.

    Raises:
        ValueError: A file is damaged or truncated, or missing from a numbered series; there is no readable record;
            there are fewer than two classes; labels do not start at 0 or 1; class names do not match the labels; or a
            record is broken under `strict`.
    """
    path = pathlib.Path(path)
    files = record_files(path)
    if path.is_dir():
        _check_shards(files)
    table = index_of(path, files, verbose)
    broken = tuple(map(tuple, json.loads(str(table["broken"]))))
    if broken and (strict or not len(table["labels"])):
        listed = "; ".join(f"{where}: {reason}" for where, reason in broken[:5])
        raise ValueError(f"{len(broken)} records cannot be read as labeled images: {listed}")
    if not len(table["labels"]):
        raise ValueError(f"There is no record in the {len(files)} TFRecord files of {os.fspath(path)!r}.")
    train, validation = _parts(path, files, table)
    first = _first_label(table["labels"][train], path)
    names = _class_names(path, table, first, int(table["labels"][train].max()))
    if validation is None:
        keys = [f"{files[number].name}:{begin}" for number, begin in table["places"][train, :2].tolist()]
        kept_rows, held_rows = held_back(keys, table["labels"][train] - first, len(names), validation_split)
        train, validation = train[kept_rows], train[held_rows]
    sources = []
    for rows, where in ((train, "training"), (validation, "validation")):
        labels = table["labels"][rows] - first
        check_labels(labels, names, f"{where} (label 1 in the records is class 0)" if first else where)
        sources.append(RecordSource(files, table["places"][rows], labels, names))
    check_classes(sources[0].labels, names, "training")
    return sources[0], sources[1], broken


def _check_shards(files: list[pathlib.Path]) -> None:
    rows: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if match := _SHARD.match(os.fspath(file)):
            rows.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (stem, count), numbers in rows.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise ValueError(
                f"All {count} files of {os.path.basename(stem)!r} are needed; {len(missing)} are missing, the first is "
                f"{stem}-{missing[0]:05}-of-{count:05}."
            )


def _parts(
    path: pathlib.Path, files: list[pathlib.Path], table: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the rows of the table for training, and those for validation if file names mark any."""
    parts = np.array([_part(file, path) for file in files])[table["places"][:, 0]]
    found = set(parts.tolist())
    other = next((part for part in ("validation", "val", "test") if part in found), None)
    if "train" not in found:
        raise ValueError(
            f"The names of the files to train on must contain 'train'; those in {os.fspath(path)!r} contain "
            f"{', '.join(sorted(found))}."
        )
    return np.flatnonzero(parts == "train"), None if other is None else np.flatnonzero(parts == other)


def _part(file: pathlib.Path, path: pathlib.Path) -> str:
    if file == path:  # one file with all images
        return "train"
    for name in (file.name, file.parent.name if file.parent != path else ""):
        if match := _PART.search(name):
            return match[1]
    return "train"


def _first_label(labels: np.ndarray, path: pathlib.Path) -> int:
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest not in (0, 1):
        raise ValueError(
            f"The labels in the records of {os.fspath(path)!r} must start at 0, or at 1 if 0 is the background; "
            f"received {lowest} to {highest}."
        )
    if lowest == highest:
        raise ValueError(f"At least two classes are needed; each record of {os.fspath(path)!r} has label {lowest}.")
    if highest - lowest >= len(labels):
        raise ValueError(
            f"Each class needs an image; the labels in {os.fspath(path)!r} range from {lowest} to {highest} in "
            f"{len(labels)} records for training. Number the classes without gaps."
        )
    return lowest


def _class_names(path: pathlib.Path, table: dict[str, np.ndarray], first: int, last: int) -> list[str]:
    folder = path if path.is_dir() else path.parent
    for file in (folder / "labels.txt", folder / "label.labels.txt"):
        if file.is_file():
            return _listed_names(file, first, last)
    named: dict[int, list[str]] = {int(label): names for label, names in json.loads(str(table["names"])).items()}
    for kind in range(len(NAME_FEATURES)):
        names = [named.get(label, ["", ""])[kind] for label in range(first, last + 1)]
        if all(names):
            times = collections.Counter(names)  # two of ImageNet's classes are named crane
            return [
                name if times[name] == 1 else f"{name} ({named[first + index][1] or index})"
                for index, name in enumerate(names)
            ]
    return [str(index) for index in range(last - first + 1)]


def _listed_names(file: pathlib.Path, first: int, last: int) -> list[str]:
    lines = class_names_in(file.read_bytes(), os.fspath(file))
    numbered = [re.fullmatch(r"(\d+):(.*)", line) for line in lines]
    if lines and all(numbered):
        by_label = {int(match[1]): match[2].strip() for match in numbered if match}
        if set(range(first, last + 1)) <= by_label.keys():
            return [by_label[label] for label in sorted(by_label) if label >= first]
    # A list may also name the background.
    elif first == 1 and len(lines) == last + 1:
        return lines[1:]
    elif len(lines) > last - first:
        return lines
    raise ValueError(
        f"{os.fspath(file)!r} must name the classes of all labels, {first} to {last}, one per line; received "
        f"{len(lines)} lines."
    )
