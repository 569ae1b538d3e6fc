"""Strict loading of Keras' own weights files.

`load_weights` ignores what the model lacks. Keras documents neither what a weights file contains nor a way to find out:
this is the only module that reads the arrays in such files.
"""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import zipfile
from typing import Any

import h5py
import keras

from se_keras.file_kinds import damaged
from se_keras.files import replacing
from se_keras.images.record import Preprocessing
from se_keras.model_files import read_config
from se_keras.weights.convert import variables_by_name
from se_keras.weights.readers import Stated
from se_keras.weights.structure import check_structure, fingerprint_of_layers
from se_keras.weights.values import check_values

KERAS_FILES = (".weights.h5", ".keras")


def load_keras_file(model: keras.Model, path: str | os.PathLike) -> None:
    """Loads a `.weights.h5` or `.keras` file into a model of the same structure.

    Args:
        model: The model to fill.
        path: The file.

    Raises:
        ValueError: The file has another ending, does not fit the model, or contains NaN or
            infinite values.
        WeightsMismatchError: Every shape fits, but the `.keras` file has a different structure.
    """
    path = os.fspath(path)
    if not path.endswith(KERAS_FILES):
        raise ValueError(f"A weights file must end in .weights.h5 or .keras; received {path!r}.")
    stored = _stored_shapes(path)
    own = collections.Counter(tuple(weight.shape) for weight in model.weights)
    if stored != own:  # Keras ignores what the model lacks, and only warns about what the file lacks
        raise ValueError(
            f"The weights in {path!r} do not fit {model.name!r} as it was built: of its {own.total()} arrays, "
            f"{(own - stored).total()} have no counterpart in the file; of the file's {stored.total()}, "
            f"{(stored - own).total()} have none in the model. Build it with the options (classes, se, include_top) "
            "that the file was saved with."
        )
    check_structure(model, stated_by(path).structure, variables_by_name(model), source=path)
    try:
        model.load_weights(path)
    except MemoryError:
        raise
    except Exception as error:
        raise damaged(path, "Keras weights file", error, containers=("a zip archive", "an HDF5 file")) from error
    for variable in model.weights:
        check_values(variable.path, keras.ops.convert_to_numpy(variable), str(variable.dtype), source=repr(path))


def save_keras_file(model: keras.Model, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Writes a model, or its weights alone, as Keras does.

    HDF5 may crash the whole process when the disk is full. For a `.keras` file, Keras writes the HDF5 data in memory;
    therefore, a `.weights.h5` file is extracted from a `.keras` file.

    Args:
        model: Any built model.
        path: The file to write, ending in .keras or .weights.h5. It appears only when it is complete.
        overwrite: Whether to replace an existing file of the same kind.

    Raises:
        FileExistsError: The path exists, and `overwrite` is False or it is another kind of file.
        OSError: The file cannot be written, for example because the disk is full.
        ValueError: The path has another ending.
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
    """Returns what a Keras file states about the network that it was written from.

    Args:
        path: A `.keras` file, which contains the model's configuration, or a `.weights.h5` file,
            which does not.

    Returns:
        What the configuration states; nothing for a `.weights.h5` file.

    Raises:
        ValueError: The file cannot be read.
    """
    path = os.fspath(path)
    layers = _layer_configs(path) if path.endswith(".keras") else []
    structure = fingerprint_of_layers(layers) if layers else None
    layer = next((config for _, kind, config in layers if kind == "ImagePreprocessing"), None)
    if layer is None:
        return Stated(structure)
    names = tuple(layer.get("class_names", ())) if layer.get("classifier") == layers[-1][0] else ()
    units = next((config["units"] for name, _, config in layers if name == "logits"), None) if names else None
    return Stated(structure, Preprocessing.from_config(layer), names, units)


def _layer_configs(path: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Reads the name, class name, and configuration of each layer without building any."""
    config = read_config(path)
    try:
        return [(one["config"]["name"], one["class_name"], one["config"]) for one in config["config"].get("layers", [])]
    except Exception as error:  # a configuration of an unexpected form
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
    except Exception as error:  # anything that zipfile or HDF5 raises on such bytes
        container = "a zip archive" if path.endswith(".keras") else "an HDF5 file"
        raise damaged(path, "Keras weights file", error, containers=(container,)) from error
    return shapes
