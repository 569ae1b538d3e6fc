"""Folders of TFRecord files, a common format of ImageNet: images in any order, without TensorFlow.

A TFRecord file is a sequence of records (length, checksum of the length, content, checksum of the content), which can
only be read from the beginning. It is read once; the position and label of each image are then kept in an index next
to the files. After that, an image takes one read of its own bytes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import io
import json
import mmap
import os
import pathlib
import re
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from se_keras.class_names import class_names_in
from se_keras.images import reading
from se_keras.progress import tracked
from se_keras.training import tf_example
from se_keras.training.holdout import check_classes, check_labels, held_back
from se_keras.training.kept_index import kept

INDEX_FILE = ".se_keras_index.npz"

# Names of the features, in ImageNet and in TensorFlow Datasets.
IMAGE_FEATURES = ("image/encoded", "image")
LABEL_FEATURES = ("image/class/label", "label")
NAME_FEATURES = ("image/class/text", "image/class/synset")

_RECORD_FILE = re.compile(r"\.tfrecords?$|(\.tfrecords?|(^|[-_.])(train|validation|val|test))-\d{5}-of-\d{5}$")
_PART = re.compile(r"(?:^|[^a-z])(train|validation|val|test)(?![a-z])")
_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})$")
_HEADER = struct.Struct("<QI")


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
        validation_split: Fraction of each class to hold back if no file is named `validation`, `val`, or
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
    table = _index(path, files, verbose)
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
    """Returns the rows of the table for training, and those for validation if files are named so."""
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


# The index.


@dataclasses.dataclass
class _Scan:
    """The content of one file: (position, size, label) of each image, class names by label, and broken records."""

    images: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    names: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    broken: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def _index(path: pathlib.Path, files: list[pathlib.Path], verbose: str | int) -> dict[str, np.ndarray]:
    folder = path if path.is_dir() else path.parent
    listing = [(file.relative_to(folder).as_posix(), file.stat()) for file in files]
    stamp = json.dumps([2, *((name, status.st_size, status.st_mtime_ns) for name, status in listing)])
    name = INDEX_FILE if path.is_dir() else f".{path.name}{INDEX_FILE}"
    return kept(folder / name, stamp, lambda: _scan_all(files, verbose))


def _scan_all(files: list[pathlib.Path], verbose: str | int) -> dict[str, np.ndarray]:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = [pool.submit(_scan, file) for file in files]
        try:
            scans = [scan.result() for scan in tracked(running, "Checking images", verbose=verbose)]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error, the other files need not be read
    names: dict[int, tuple[str, ...]] = {}
    for scan in scans:
        names = {**scan.names, **names}
    rows = [(number, *image) for number, scan in enumerate(scans) for image in scan.images]
    numbers = np.array(rows, np.int64).reshape(-1, 4)
    return {
        "places": numbers[:, :3],
        "labels": numbers[:, 3],
        "names": np.array(json.dumps(names)),
        "broken": np.array(json.dumps([fault for scan in scans for fault in scan.broken])),
    }


def _scan(file: pathlib.Path) -> _Scan:
    """Reads a whole file and decodes all images once, like the files in a folder; here the result is kept."""
    scan = _Scan()
    if file.stat().st_size == 0:
        return scan
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number, span in enumerate(_records(data, file)):
            try:
                begin, end, label, names = _labeled_image(data, span)
            except ValueError as error:
                scan.broken.append((f"{os.fspath(file)} record {number}", str(error)))
                continue
            if reason := reading.fault(io.BytesIO(data[begin:end])):
                scan.broken.append((f"{os.fspath(file)} record {number}", reason))
                continue
            scan.images.append((begin, end - begin, label))
            scan.names.setdefault(label, names)
    return scan


def _records(data: mmap.mmap, file: pathlib.Path) -> Iterator[tf_example.Span]:
    """Yields the positions of the contents of the records."""
    position, number = 0, 0
    while position < len(data):
        begin = position + _HEADER.size
        if begin <= len(data):
            size, checksum = _HEADER.unpack_from(data, position)
            if checksum != _masked_crc32c(data[position : position + 8]):
                raise ValueError(
                    f"{os.fspath(file)!r} is not a TFRecord file, compressed, or damaged: the checksum of the length "
                    f"of record {number} (byte {position}) is wrong. Unpack compressed files first."
                )
            position = begin + size + 4
        if begin > len(data) or position > len(data):
            raise ValueError(
                f"{os.fspath(file)!r} is truncated within record {number}: it ends after {len(data)} bytes. Copy or "
                "download it again."
            )
        yield begin, begin + size
        number += 1


def _labeled_image(data: mmap.mmap, record: tf_example.Span) -> tuple[int, int, int, tuple[str, ...]]:
    """Returns the position of the image of a record, its label, and the names of its class."""
    found = tf_example.features(data, record)
    features = {key: found[key] for key in (*IMAGE_FEATURES, *LABEL_FEATURES, *NAME_FEATURES) if key in found}
    image = next((features[key] for key in IMAGE_FEATURES if key in features), None)
    label = next((features[key] for key in LABEL_FEATURES if key in features), None)
    span = None if image is None else tf_example.first_bytes(data, image)
    value = None if label is None else tf_example.first_integer(data, label)
    if span is None or value is None:
        lacking = IMAGE_FEATURES if span is None else LABEL_FEATURES
        raise ValueError(f"has no {lacking[0]!r} (or {lacking[1]!r}); it has {', '.join(sorted(found)) or 'nothing'}")
    texts = [tf_example.first_bytes(data, features[key]) if key in features else None for key in NAME_FEATURES]
    return *span, value, tuple("" if text is None else data[slice(*text)].decode() for text in texts)


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC32C = _table()


def _masked_crc32c(data: bytes) -> int:
    """Returns TFRecord's checksum: CRC-32C, rotated by 15 bits, plus a constant (tensorflow/core/lib/hash/crc32c.h)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF
