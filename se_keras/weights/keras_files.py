"""Keras' own weights files, loaded strictly."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import shutil
import zipfile
from typing import Any

import h5py
import keras

from se_keras.file_kinds import damaged
from se_keras.files import replacing
from se_keras.images.record import Preprocessing
from se_keras.weights.files import fingerprint_of, fingerprint_of_layers, structure_mismatch, variables_by_name
from se_keras.weights.readers import Stated
from se_keras.weights.values import check_values

KERAS_FILES = (".weights.h5", ".keras")


def load_keras_file(model: keras.Model, path: str | os.PathLike) -> None:
    """Loads a `.weights.h5` or `.keras` file into a model of the same structure.

    Args:
        model: The model to fill.
        path: The file.

    Raises:
        ValueError: The file ends in something else, does not fit the model, or holds NaN or
            infinite values.
        WeightsMismatchError: Every shape fits, but the `.keras` file is of another structure.
    """
    path = os.fspath(path)
    if not path.endswith(KERAS_FILES):
        raise ValueError(f"A weights file ends in .weights.h5 or .keras; received {path!r}.")
    stored = _stored_shapes(path)
    own = collections.Counter(tuple(weight.shape) for weight in model.weights)
    if stored != own:  # Keras itself ignores what the model lacks, and warns only of what the file lacks
        raise ValueError(
            f"The weights in {path!r} are not those of {model.name!r} as it was built: of its {own.total()} arrays "
            f"{(own - stored).total()} have no counterpart in the file, and of the file's {stored.total()} "
            f"{(stored - own).total()} have none in the model. Build it with the options (classes, se, include_top) "
            "that the file was saved with."
        )
    if stated_by(path).structure not in (None, fingerprint_of(model)):
        raise structure_mismatch(model, variables_by_name(model), path)
    try:
        model.load_weights(path)
    except MemoryError:
        raise
    except Exception as error:
        raise damaged(path, "weights file of Keras", error, containers=("a zip archive", "an HDF5 file")) from error
    for variable in model.weights:
        check_values(variable.path, keras.ops.convert_to_numpy(variable), variable, source=repr(path))


def save_keras_file(model: keras.Model, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Writes a model, or its weights alone, as Keras does.

    HDF5 may crash the whole process when a disk gets full. Keras writes it in memory for a `.keras` file, so that is
    where a `.weights.h5` file is taken from.

    Args:
        model: Any built model.
        path: The file to write, ending in .keras or .weights.h5; it appears when it is whole.
        overwrite: Whether a file of this kind that exists there may be replaced.

    Raises:
        FileExistsError: Something is there, and `overwrite` is False or it is of another kind.
        OSError: The disk is full, or the like.
        ValueError: Another ending.
    """
    path = os.fspath(path)
    if not path.endswith(KERAS_FILES):
        raise ValueError(f"`path` must end in {' or '.join(KERAS_FILES)}; received {path!r}.")
    with replacing(path, overwrite=overwrite) as temporary:
        if path.endswith(".keras"):
            model.save(temporary)
            return
        whole = temporary.with_name("whole.keras")
        model.save(whole)
        with (
            zipfile.ZipFile(whole) as archive,
            archive.open("model.weights.h5") as weights,
            open(temporary, "wb") as stream,
        ):
            shutil.copyfileobj(weights, stream)


def stated_by(path: str | os.PathLike) -> Stated:
    """What a Keras file says of the network that it was written from.

    Args:
        path: A `.keras` file, which holds the model's configuration, or a `.weights.h5` file,
            which does not.

    Returns:
        What the configuration says; nothing for a `.weights.h5` file.

    Raises:
        ValueError: The file cannot be read.
    """
    path = os.fspath(path)
    layers = _layer_configs(path) if path.endswith(".keras") else []
    prepared = next((config for _, kind, config in layers if kind == "ImagePreprocessing"), None)
    return Stated(
        fingerprint_of_layers(layers) if layers else None,
        None if prepared is None else Preprocessing.from_config(prepared),
    )


def _layer_configs(path: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, class name and configuration of each layer, read without building any."""
    try:
        with zipfile.ZipFile(path) as archive:
            stored = json.loads(archive.read("config.json"))["config"].get("layers", [])
        return [(layer["config"]["name"], layer["class_name"], layer["config"]) for layer in stored]
    except Exception as error:  # whatever the bytes make of zipfile, JSON and a configuration
        raise damaged(path, ".keras file", error, containers=("a zip archive",)) from error


def _stored_shapes(path: str) -> collections.Counter[tuple[int, ...]]:
    shapes: collections.Counter[tuple[int, ...]] = collections.Counter()

    def add(name: str, item: Any) -> None:
        if name.startswith("layers/") and "seed_generator" not in name and isinstance(item, h5py.Dataset):
            shapes[item.shape] += 1

    try:
        with contextlib.ExitStack() as stack:
            file: Any = path
            if path.endswith(".keras"):
                archive = stack.enter_context(zipfile.ZipFile(path))
                file = stack.enter_context(archive.open("model.weights.h5"))
            stack.enter_context(h5py.File(file, "r")).visititems(add)
    except Exception as error:  # whatever the bytes make of zipfile and HDF5
        container = "a zip archive" if path.endswith(".keras") else "an HDF5 file"
        raise damaged(path, "weights file of Keras", error, containers=(container,)) from error
    return shapes
