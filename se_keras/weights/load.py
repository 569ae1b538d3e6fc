"""From a record or a file to a filled model: download, conversion, the cache of converted weights, and adaptation."""

from __future__ import annotations

import os
import pathlib
import re
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from se_keras.errors import WeightsMismatchError
from se_keras.files import locked
from se_keras.weights.class_order import sorted_from_devkit
from se_keras.weights.convert import convert
from se_keras.weights.download import fetch
from se_keras.weights.files import fill, fingerprint_of, save_safetensors, structure_mismatch, variables_by_name
from se_keras.weights.home import cache_folder
from se_keras.weights.published import RECORDS
from se_keras.weights.readers import SafetensorsFile, read_tensors
from se_keras.weights.records import WeightsRecord
from se_keras.weights.rules import FAMILIES

HEAD = "logits"
STEM = ("stem_conv/kernel", "stem_conv1/kernel")


def load_record(model: keras.Model, record: WeightsRecord, build_full: Callable[[], keras.Model]) -> None:
    """Fills a model with a published checkpoint, adapted to its classes and channels.

    Args:
        model: A model of the record's network and lineage.
        record: The checkpoint.
        build_full: Builds the network as it was published: RGB, 1,000 classes.

    Raises:
        DownloadError: The checkpoint could not be downloaded.
        WeightsMismatchError: The checkpoint does not fit the network.
    """
    if record.family == "se_keras":
        load_own(model, SafetensorsFile(fetch(record)))
        return
    converted = cache_folder() / "converted" / f"{record.identifier}.safetensors"
    if not converted.is_file():
        _write_converted(converted, record, model if _is_full(model) else build_full())
    try:
        load_own(model, SafetensorsFile(converted))
    except WeightsMismatchError:
        raise
    except ValueError:
        converted.unlink(missing_ok=True)  # damaged on disk: convert the verified download again
        load_record(model, record, build_full)


def _write_converted(path: pathlib.Path, record: WeightsRecord, full: keras.Model) -> None:
    """Converts a checkpoint for the cache; processes that need the same one at the same time wait for the first."""
    with locked(path.with_name(f"{path.name}.lock"), path, patience=-1):
        if path.is_file():
            return
        convert_file(full, fetch(record), record.family, class_order=record.class_order, channels=record.channel_order)
        save_safetensors(full, path)


def _is_full(model: keras.Model) -> bool:
    variables = variables_by_name(model)
    classes = variables[f"{HEAD}/bias"].shape[0] if f"{HEAD}/bias" in variables else 0
    return classes == 1000 and variables[_stem(variables)].shape[2] == 3


def _stem(names: Mapping[str, Any]) -> str:
    return next(name for name in STEM if name in names)


def convert_file(
    model: keras.Model,
    path: str | os.PathLike,
    family: str,
    *,
    class_order: str = "sorted",
    channels: str = "rgb",
) -> None:
    """Fills a full model with a checkpoint file from another source.

    Args:
        model: A model for RGB images, with as many classes as the checkpoint.
        path: The file.
        family: How its tensors are named, a key of `rules.FAMILIES`.
        class_order: "sorted", or "devkit" for the authors' own networks.
        channels: "rgb", or "bgr" for the authors' own networks.

    Raises:
        WeightsMismatchError: The checkpoint does not fit; the message guesses which network it belongs to.
        ValueError: The file is damaged or of an unknown kind.
    """
    tensors = read_tensors(path)
    try:
        convert(tensors, model, family)
    except WeightsMismatchError as error:
        raise WeightsMismatchError(
            f"{os.fspath(path)!r}: {error.title}", error.expected, error.unused, _guess(tensors) or error.hint
        ) from error
    if channels == "bgr":
        kernel = variables_by_name(model)[_stem(variables_by_name(model))]
        kernel.assign(keras.ops.convert_to_numpy(kernel)[:, :, ::-1, :])
    if class_order == "devkit":
        order = sorted_from_devkit()
        for name in ("kernel", "bias"):
            variable = variables_by_name(model)[f"{HEAD}/{name}"]
            variable.assign(keras.ops.convert_to_numpy(variable)[..., order])


def _guess(tensors: Mapping[str, np.ndarray]) -> str:
    """Guesses which networks a checkpoint may belong to, by its number of trainable parameters."""
    statistics = re.compile(r"running_(mean|var)$|num_batches_tracked$|/bn\[\d\]$")
    count = sum(array.size for name, array in tensors.items() if not statistics.search(name))
    models = sorted({record.model for record in RECORDS.values() if record.parameters == count})
    return f"its {count:,} parameters are those of {' or '.join(map(repr, models))}." if models else ""


def family_of(path: str | os.PathLike) -> str | None:
    """Returns how a checkpoint file names its tensors.

    Args:
        path: A `.safetensors`, `.pth`, or `.caffemodel` file.

    Returns:
        A key of `rules.FAMILIES`, or None for the package's own format.

    Raises:
        ValueError: The names belong to no known family; the message shows some of them.
    """
    tensors = read_tensors(path)
    if isinstance(tensors, SafetensorsFile) and tensors.is_own:
        return None
    for family, rules in FAMILIES.items():
        if rules.signature in tensors:
            return family
    shown = ", ".join(sorted(tensors)[:5])
    raise ValueError(f"{os.fspath(path)!r} is of no known family ({', '.join(FAMILIES)}); it contains {shown}, ...")


def load_own(model: keras.Model, tensors: SafetensorsFile) -> None:
    """Fills a model from a file that `save_safetensors` wrote, adapted to the model's classes and channels.

    A classifier with other classes keeps its initial weights. A stem with other channels gets the
    file's weights, summed over RGB (one channel) or repeated and rescaled (any other number).

    Args:
        model: The model.
        tensors: The file.

    Raises:
        WeightsMismatchError: Anything else differs, or the structures differ although the shapes agree.
    """
    if tensors.stated.structure not in (None, fingerprint_of(model)):
        raise structure_mismatch(model, tensors, tensors.path)
    _fill_adapted(model, tensors, source=tensors.path)


def load_adapted(model: keras.Model, full: keras.Model, *, source: str) -> None:
    """Fills a model from one of the same structure for RGB images, with the checkpoint's classes.

    Args:
        model: The model to fill, adapted as in `load_own`.
        full: The filled model.
        source: Where its weights come from, for the message.

    Raises:
        WeightsMismatchError: More than classes and channels differs.
    """
    arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in variables_by_name(full).items()}
    _fill_adapted(model, arrays, source=source)


def _fill_adapted(model: keras.Model, tensors: Mapping[str, np.ndarray], *, source: str) -> None:
    variables = variables_by_name(model)
    head = f"{HEAD}/kernel"
    has_head = head in variables
    same_classes = has_head and head in tensors and tuple(variables[head].shape) == tensors[head].shape
    fresh = (HEAD,) if has_head and not same_classes else ()
    unused = () if has_head else (HEAD,)
    fill(model, _with_stem(tensors, variables), fresh=fresh, unused=unused, source=source)


def _with_stem(tensors: Any, variables: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    name = next((name for name in STEM if name in variables and name in tensors), None)
    if name is None or tensors[name].shape[2] == variables[name].shape[2]:
        return tensors
    return ChainMap({name: adapt_channels(tensors[name], variables[name].shape[2])}, tensors)


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapts a first convolution's kernel to another number of input channels.

    One channel: the sum over R, G, and B; a gray image gets the same output as its RGB copy. Other
    numbers: R, G, B, R, ... as often as needed, scaled to keep the sum over channels.

    Args:
        kernel: Array of shape (height, width, 3, filters).
        channels: The new number of channels, at least 1.

    Returns:
        Array of shape (height, width, channels, filters).
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    had = kernel.shape[2]
    repeated = np.concatenate([kernel] * -(-channels // had), axis=2)[:, :, :channels]
    return repeated * (had / channels)
