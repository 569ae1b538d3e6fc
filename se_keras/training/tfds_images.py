"""Image datasets from TensorFlow Datasets (TFDS), read in any order."""

from __future__ import annotations

import difflib
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from se_keras.errors import missing_package
from se_keras.images import reading
from se_keras.progress import tracked
from se_keras.training import tf_example
from se_keras.training.holdout import check_labels, held_back
from se_keras.training.kept_index import kept
from se_keras.training.tfrecord import RecordSource, open_records

PREFIX = "tfds/"
"""Prefix of the names of such datasets, as in timm."""


class TFDSSource:
    """A source of the images in one split of a dataset.

    Args:
        records: The records of the split, each a serialized `tf.train.Example`.
        rows: Positions of the records to use, in order, shape (n,).
        labels: Integer label of each of these, shape (n,).
        class_names: Name of each class.
        image: Name of the feature that holds the encoded image.
        origin: Name and version of the dataset, and its split.
    """

    def __init__(
        self,
        records: Sequence[bytes],
        rows: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        image: str,
        origin: str,
    ) -> None:
        self._records, self._rows, self._image, self._origin = records, rows, image, origin
        self.labels: np.ndarray = labels.astype(np.int64)
        self.class_names = tuple(class_names)
        digest = hashlib.sha256(rows.astype(np.int64).tobytes() + self.labels.tobytes())
        digest.update("\n".join((origin, *self.class_names)).encode())
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns one image, upright RGB, uint8, shape (height, width, 3)."""
        row = int(self._rows[index])
        record = self._records[row]
        feature = tf_example.features(record, (0, len(record)))[self._image]
        span = tf_example.first_bytes(record, feature) or (0, 0)
        return reading.decode(record[slice(*span)], f"{self._origin}, record {row}")


def open_tfds(
    name: str,
    *,
    validation_split: float,
    strict: bool,
    verbose: str | int,
) -> tuple[TFDSSource, TFDSSource, tuple] | tuple[RecordSource, RecordSource, tuple]:
    """Opens a dataset of TensorFlow Datasets, which downloads and prepares it the first time.

    Training uses the split `train`; validation uses `validation`, else `test`, else images held back from `train`.
    A prepared dataset is read as it is, from ArrayRecord or TFRecord files; others are prepared as ArrayRecord.
    Labels are read once and kept next to the dataset. TFDS keeps its datasets in `~/tensorflow_datasets`, or in
    `TFDS_DATA_DIR`.

    Args:
        name: Name in TFDS, `name[/config][:version]`, such as "oxford_iiit_pet" or "cifar10_1/v6:1.1.0".
        validation_split: Approximate fraction of each class to hold back if there is no split for validation.
        strict: As in `tfrecord.open_records`, for a dataset that is prepared as TFRecord files.
        verbose: "auto" or 1 to show a progress bar while labels are read for the first time, 0 to show none.

    Returns:
        Images for training, images for validation, and the records that were left out, each with the reason.

    Raises:
        ImportError: TensorFlow Datasets is not installed.
        ValueError: There is no such dataset, it has no split `train`, or its examples do not have one image and one
            label each.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise missing_package("tensorflow_datasets", "tfds", f"{PREFIX}{name}") from error
    builder = _prepared(tfds, name)
    image, label = _features(tfds, builder.info, name)
    splits = list(builder.info.splits)
    if "train" not in splits:
        raise ValueError(f"{PREFIX}{name} must have a split 'train'; found {', '.join(splits)}.")
    formats = {found.value for found in builder.info.available_file_formats()}
    if "array_record" not in formats:
        return open_records(builder.data_path, validation_split=validation_split, strict=strict, verbose=verbose)
    class_names = [str(entry) for entry in builder.info.features[label].names]

    def source(split: str, chosen: np.ndarray | None = None) -> TFDSSource:
        rows = np.arange(len(read[split])) if chosen is None else chosen
        labels = labels_of[split][rows]
        check_labels(labels, class_names, f"split {split!r} of {PREFIX}{name}")
        origin = f"{builder.info.full_name} {split}"
        return TFDSSource(read[split], rows, labels, class_names, image=image, origin=origin)

    other = next((split for split in ("validation", "test") if split in splits), None)
    wanted = ["train"] if other is None else ["train", other]
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    read = {split: builder.as_data_source(split=split, deserialize_method=raw) for split in wanted}
    labels_of = {split: _labels(read[split], label, builder, split, verbose) for split in wanted}
    if other is not None:
        return source("train"), source(other), ()
    check_labels(labels_of["train"], class_names, f"split 'train' of {PREFIX}{name}")
    keys = list(map(str, range(len(read["train"]))))
    train, validation = held_back(keys, labels_of["train"], len(class_names), validation_split)
    return source("train", train), source("train", validation), ()


def _prepared(tfds: Any, name: str) -> Any:
    try:
        builder = tfds.builder(name)
        if builder.is_prepared():
            return builder
        builder = tfds.builder(name, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        close = difflib.get_close_matches(name, tfds.list_builders(), n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(f"TensorFlow Datasets has no dataset {name!r}.{hint}") from error
    builder.download_and_prepare()
    return builder


def _features(tfds: Any, info: Any, name: str) -> tuple[str, str]:
    """Returns the names of the image and the label in an example: those for supervised training, else the only ones."""
    features = dict(info.features)
    supervised = [key for key in info.supervised_keys or () if isinstance(key, str)]

    def only(kind: type) -> str | None:
        found = [key for key, feature in features.items() if isinstance(feature, kind)]
        named = [key for key in found if key in supervised]
        return (named or found)[0] if len(named) == 1 or len(found) == 1 else None

    image, label = only(tfds.features.Image), only(tfds.features.ClassLabel)
    if image is None or label is None or features[image].np_dtype != np.uint8:
        described = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in features.items())
        raise ValueError(
            f"For image classification, an example of {PREFIX}{name} must have one Image of type uint8 and one "
            f"ClassLabel; received {described}."
        )
    return image, label


def _labels(records: Sequence[bytes], label: str, builder: Any, split: str, verbose: str | int) -> np.ndarray:
    def read() -> dict[str, np.ndarray]:
        values: np.ndarray = np.empty(len(records), np.int64)
        for row in tracked(range(len(records)), "Reading labels", verbose=verbose):
            record = records[row]
            feature = tf_example.features(record, (0, len(record))).get(label)
            value = None if feature is None else tf_example.first_integer(record, feature)
            values[row] = -1 if value is None else value
        return {"labels": values}

    files = [(pathlib.Path(file).name, pathlib.Path(file).stat()) for file in builder.info.splits[split].filepaths]
    stamp = json.dumps([label, *((name, status.st_size, status.st_mtime_ns) for name, status in files)])
    return kept(pathlib.Path(builder.data_path) / f".se_keras_labels_{split}.npz", stamp, read)["labels"]
