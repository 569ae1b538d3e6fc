"""The package's own weights file."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from safetensors.numpy import save_file

from se_keras.class_names import get_class_names
from se_keras.errors import one_of
from se_keras.files import replacing
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import stored_preprocessing
from se_keras.weights.convert import variables_by_name
from se_keras.weights.readers import OWN_FORMAT
from se_keras.weights.structure import fingerprint_of


def save_safetensors(model: keras.Model, path: str | os.PathLike, *, overwrite: bool = False) -> pathlib.Path:
    """Writes a model's weights to a safetensors file, which any backend can load and other tools can inspect.

    Args:
        model: Any built model.
        path: The file to write, ending in .safetensors. It appears only when it is complete.
        overwrite: Whether to replace an existing safetensors file.

    Returns:
        The file. Names are "layer/variable"; the header states the model's structure and
        its preprocessing.

    Raises:
        FileExistsError: The path exists, and `overwrite` is False or it is not a safetensors file.
        OSError: The file cannot be written, for example because the disk is full.
        ValueError: The path has another ending, or two variables of the model have the same name.
    """
    path = pathlib.Path(path)
    one_of("kind of file to write", path.suffix, (".safetensors",))
    values = {name: keras.ops.convert_to_numpy(variable) for name, variable in variables_by_name(model).items()}
    with replacing(path, overwrite=overwrite) as temporary:
        write_tensors(
            values,
            temporary,
            model=model,
            preprocessing=stored_preprocessing(model),
            class_names=get_class_names(model),
        )
    return path


def write_tensors(
    values: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    *,
    model: keras.Model,
    preprocessing: Preprocessing | None,
    class_names: Sequence[str] = (),
    name: str | None = None,
) -> None:
    """Writes the weights of a network in the package's own format.

    Args:
        values: Arrays by "layer/variable".
        path: The file to write.
        model: A model of the weights' structure; its number of classes does not matter.
        preprocessing: The preprocessing to state in the header, if any.
        class_names: The class names to state in the header, if any.
        name: The name to state in the header. Default: the model's.
    """
    header = {
        "format": OWN_FORMAT,
        "model": name or model.name,
        "structure": fingerprint_of(model),
        "parameters": str(sum(array.size for array in values.values())),
    }
    if preprocessing is not None:
        header["preprocessing"] = json.dumps(dataclasses.asdict(preprocessing))
    if class_names:
        header["class_names"] = json.dumps(class_names)
    save_file({key: np.ascontiguousarray(array) for key, array in values.items()}, path, metadata=header)
    _sort_metadata(pathlib.Path(path))


def _sort_metadata(path: pathlib.Path) -> None:
    """Sorts a file's metadata, which safetensors shuffles: the same weights give the same bytes and the same hash."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))
