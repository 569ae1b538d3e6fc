"""The package's own weights file, and models filled from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from safetensors.numpy import save_file

from se_keras.errors import WeightsMismatchError, one_of
from se_keras.files import replacing
from se_keras.preprocessing import stored_preprocessing
from se_keras.weights.readers import OWN_FORMAT
from se_keras.weights.values import check_values


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
    arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in variables_by_name(model).items()}
    header = {
        "format": OWN_FORMAT,
        "model": model.name,
        "structure": fingerprint_of(model),
        "parameters": str(sum(array.size for array in arrays.values())),
    }
    prepared = stored_preprocessing(model)
    if prepared is not None:
        header["preprocessing"] = json.dumps(dataclasses.asdict(prepared))
    with replacing(path, overwrite=overwrite) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary, metadata=header)
        _sort_metadata(temporary)
    return path


def _sort_metadata(path: pathlib.Path) -> None:
    """Sorts a file's metadata, which safetensors shuffles: the same weights give the same bytes and the same hash."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def variables_by_name(model: keras.Model) -> dict[str, Any]:
    """Returns a model's variables by "layer/variable".

    Args:
        model: Any built model.

    Returns:
        The variables in the model's order.

    Raises:
        ValueError: Two variables have the same name.
    """
    variables: dict[str, Any] = {}
    for layer in model.layers:
        for variable in layer.weights:
            # In a nested model, the path distinguishes the layers, the bare name does not.
            own = variable.path.split("/", 1)[-1] if isinstance(layer, keras.Model) else variable.name
            name = f"{layer.name}/{own}"
            if name in variables:
                raise ValueError(f"Two variables of {model.name!r} are named {name!r}; rename one of the layers.")
            variables[name] = variable
    return variables


_STRUCTURAL = ("strides", "padding", "pool_size", "groups", "squeeze", "gate_activation", "activation", "gate_init")


def fingerprint_of(model: keras.Model) -> str:
    """Returns a short fingerprint of what a model computes with its weights, beyond their shapes.

    Two lineages of a network have the same variables, but their strides are in other places: the
    weights of one load into the other without an error, and the outputs are wrong. Classes, input
    size, and the preprocessing of the first layers do not count.

    Args:
        model: A functional model.

    Returns:
        16 hexadecimal digits.
    """
    return fingerprint_of_layers((layer.name, type(layer).__name__, layer.get_config()) for layer in model.layers)


def fingerprint_of_layers(layers: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    """Returns the fingerprint of a model from its configuration alone.

    Args:
        layers: Name, class name, and configuration of each layer.

    Returns:
        16 hexadecimal digits, the same as `fingerprint_of` returns for the model itself.
    """
    rows = []
    for name, kind, config in layers:
        facts = {key: config[key] for key in _STRUCTURAL if key in config}
        if facts and kind != "Dense" and name != "predictions":
            rows.append([name, kind, facts])
    text = json.dumps(sorted(rows, key=lambda row: row[0]), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_STRUCTURE_HINTS = {
    (True, False): "the weights have SE blocks and the model has none: leave out `se=None`.",
    (False, True): "the weights belong to a plain network: pass se=None.",
}


def structure_mismatch(model: keras.Model, names: Iterable[str], source: str) -> WeightsMismatchError:
    """Returns the error for weights of a structure other than the model's.

    Args:
        model: The model.
        names: Names of the weights, "layer/variable".
        source: Where the weights come from, for the message.

    Returns:
        The error, for the caller to raise.
    """
    theirs, ours = (
        any(name.endswith("/reduce_kernel") for name in given) for given in (names, variables_by_name(model))
    )
    return WeightsMismatchError(
        f"{model.name} <- {source}: made for a network of another structure (layers, strides, padding, or gates)",
        {},
        {},
        _STRUCTURE_HINTS.get((theirs, ours), "build the network, with the `se`, that the weights were saved from."),
    )


def fill(
    model: keras.Model,
    tensors: Mapping[str, np.ndarray],
    *,
    fresh: tuple[str, ...] = (),
    unused: tuple[str, ...] = (),
    source: str,
) -> None:
    """Fills a model with tensors under this package's names: completely, or not at all.

    Args:
        model: The model.
        tensors: Arrays by "layer/variable".
        fresh: Layers of the model that keep their values.
        unused: Layers whose tensors need not exist in the model.
        source: Where the tensors come from, for the message.

    Raises:
        WeightsMismatchError: A tensor is missing, left over, or of another shape.
        ValueError: A tensor contains integers, NaN, or infinite values.
    """
    variables = {
        name: variable for name, variable in variables_by_name(model).items() if name.split("/")[0] not in fresh
    }
    arrays = {name: tensors[name] for name in tensors if name in variables}
    missing = {
        name: str(tuple(variable.shape))
        for name, variable in variables.items()
        if name not in arrays or arrays[name].shape != tuple(variable.shape)
    }
    left = {
        name: str(tuple(tensors[name].shape))
        for name in tensors
        if (name not in variables or name in missing) and name.split("/")[0] not in (*fresh, *unused)
    }
    if missing or left:
        count, total = len(missing.keys() | left.keys()), len(variables.keys() | tensors.keys())
        title = f"{model.name} <- {source}: {count} of {total} tensors do not match"
        raise WeightsMismatchError(title, missing, left, "")
    for name, variable in variables.items():
        check_values(name, arrays[name], variable, source=source)
    for name, variable in variables.items():
        variable.assign(arrays[name])
