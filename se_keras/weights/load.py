"""The steps from a record to a filled model: download, conversion, and the cache of converted weights."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping

import keras
import numpy as np

from se_keras.errors import WeightsMismatchError
from se_keras.files import locked, replacing
from se_keras.weights.convert import assign, convert
from se_keras.weights.download import fetch
from se_keras.weights.files import write_tensors
from se_keras.weights.home import cache_folder
from se_keras.weights.keras_files import load_keras_file
from se_keras.weights.readers import SafetensorsFile, read_tensors
from se_keras.weights.records import LocalFile, WeightsRecord
from se_keras.weights.rules import KERAS, OWN
from se_keras.weights.structure import check_structure

_NAMING = 1
"""To be raised when the names or layouts of the tensors of existing networks change."""


def load(record: WeightsRecord, model: keras.Model) -> None:
    """Fills a model with a checkpoint, adapted to its classes and channels (see `convert.assign`).

    Published checkpoints with names of another package are converted once. From then on, the converted copy in the
    cache is read.

    Args:
        record: The checkpoint.
        model: A model of the record's network and lineage.

    Raises:
        DownloadError: The checkpoint could not be downloaded.
        WeightsMismatchError: The checkpoint does not fit, or its structure differs although every shape agrees.
        ValueError: The file is damaged.
    """
    if record.family == KERAS:
        load_keras_file(model, fetch(record))
    elif record.family == OWN or isinstance(record.sources[0], LocalFile):
        assign(model, _from_source(record, model))
    else:
        assign(model, _from_copy(record, model))


def _from_source(record: WeightsRecord, model: keras.Model) -> dict[str, np.ndarray]:
    source, path = record.sources[0], fetch(record)
    tensors = source.tensors if isinstance(source, LocalFile) and source.tensors is not None else read_tensors(path)
    return _checked(tensors, model, record.family, path)


def _from_copy(record: WeightsRecord, model: keras.Model) -> dict[str, np.ndarray]:
    """Returns a published checkpoint from its converted copy, which is written first if there is none."""
    # Under another name if the source or the naming of our tensors changes.
    version = hashlib.sha256(repr((_NAMING, record.sources)).encode()).hexdigest()[:8]
    copy = cache_folder() / "converted" / f"{record.identifier}.{version}.safetensors"
    if copy.is_file():
        try:
            return _checked(SafetensorsFile(copy), model, OWN, copy)
        except WeightsMismatchError:
            raise
        except ValueError:
            copy.unlink(missing_ok=True)  # damaged on disk: convert the verified download again
    with locked(copy.with_name(f"{copy.name}.lock"), copy, patience=-1):
        if copy.is_file():  # another process has written it meanwhile
            return _checked(SafetensorsFile(copy), model, OWN, copy)
        values = _from_source(record, model)
        with replacing(copy, overwrite=True) as temporary:
            write_tensors(values, temporary, name=record.model, model=model, preprocessing=record.preprocessing)
        return values


def _checked(
    tensors: Mapping[str, np.ndarray], model: keras.Model, family: str, path: pathlib.Path
) -> dict[str, np.ndarray]:
    if family == OWN and isinstance(tensors, SafetensorsFile):
        check_structure(model, tensors.stated.structure, tensors, source=str(path))
    return convert(tensors, model, family, source=str(path) if family == OWN else f"{path} ({family})")
