"""The index of TFRecord files: the position and the label of each image.

A TFRecord file is a sequence of records (length, checksum of the length, content, checksum of the content), which can
only be read from the beginning. It is read once, and the index is kept next to the files.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import json
import mmap
import os
import pathlib
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from se_keras.images import reading
from se_keras.progress import tracked
from se_keras.training import tf_example
from se_keras.training.kept_index import kept

INDEX_FILE = ".se_keras_index.npz"

# Names of the features, in ImageNet and in TensorFlow Datasets.
IMAGE_FEATURES = ("image/encoded", "image")
LABEL_FEATURES = ("image/class/label", "label")
NAME_FEATURES = ("image/class/text", "image/class/synset")

_HEADER = struct.Struct("<QI")


@dataclasses.dataclass
class _Scan:
    """The content of one file: (position, size, label) of each image, class names by label, and broken records."""

    images: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    names: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    broken: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def index_of(path: pathlib.Path, files: Sequence[pathlib.Path], verbose: str | int) -> dict[str, np.ndarray]:
    """Returns the positions and the labels of the images in TFRecord files.

    Args:
        path: The folder of the files, or the file.
        files: The files.
        verbose: "auto" or 1 to show a progress bar while the files are read for the first time, 0 to show none.

    Returns:
        `places` and `labels` as in `tfrecord.RecordSource`; `names`, a JSON object from each label to its class names,
        one per feature in `NAME_FEATURES`; and `broken`, a JSON list of the records left out and the reasons.

    Raises:
        ValueError: A file is damaged or truncated.
    """
    folder = path if path.is_dir() else path.parent
    listing = [(file.relative_to(folder).as_posix(), file.stat()) for file in files]
    stamp = json.dumps([2, *((name, status.st_size, status.st_mtime_ns) for name, status in listing)])
    name = INDEX_FILE if path.is_dir() else f".{path.name}{INDEX_FILE}"
    return kept(folder / name, stamp, lambda: _scan_all(files, verbose))


def _scan_all(files: Sequence[pathlib.Path], verbose: str | int) -> dict[str, np.ndarray]:
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
    """Reads a whole file and decodes every image once, as for a folder of images; here the result is kept."""
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
                    f"{os.fspath(file)!r} is not a TFRecord file, is compressed, or is damaged: the checksum of the "
                    f"length of record {number} (byte {position}) is wrong. Unpack compressed files first."
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
