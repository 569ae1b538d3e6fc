"""Networks in timm's layout: a folder, or a repository of the Hugging Face Hub, with a configuration and weights.

The layout is that of `timm.models.push_to_hf_hub` and `save_for_hf` (timm 1.0.31).
"""

from __future__ import annotations

import json
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.class_names import check_class_names, imagenet_classes
from se_keras.errors import check_count, one_of
from se_keras.images.record import Preprocessing
from se_keras.weights.download import fetch_from_repository
from se_keras.weights.readers import read_tensors
from se_keras.weights.records import LocalFile, WeightsRecord
from se_keras.weights.rules import FAMILIES
from se_keras.weights.timm_names import ARCHITECTURES

HUB, FOLDER = "hf-hub:", "local-dir:"
CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")

_POOLINGS = ("avg", "fastavg", "fast")
_HARMLESS = ("in_chans", "num_classes", "global_pool", "drop_rate", "drop_path_rate", "drop_block_rate")
"""Arguments of timm's networks that change no computation at inference, or that other entries state as well."""

_Opener = Callable[..., pathlib.Path]


def is_layout(name: str | os.PathLike) -> bool:
    """Returns whether a name stands for a network in timm's layout: "hf-hub:OWNER/REPO" or "local-dir:PATH"."""
    return os.fspath(name).startswith((HUB, FOLDER))


def read_layout(name: str) -> WeightsRecord:
    """Returns the record of a network in timm's layout.

    Args:
        name: "hf-hub:OWNER/REPO", "hf-hub:OWNER/REPO@REVISION", or "local-dir:PATH".

    Returns:
        The record, with the tensors, class names, and preprocessing of the network.

    Raises:
        FileNotFoundError: The folder, or a file in it, does not exist.
        DownloadError: The repository, or a file in it, does not exist or could not be downloaded.
        ValueError: The configuration is damaged, or it describes a network that this package does not have (the
            message names the closest ones).

    Warns:
        UserWarning: The configuration states a way to crop images that this package does not have.
    """
    opener = _on_hub(name) if name.startswith(HUB) else _in_folder(name.removeprefix(FOLDER))
    config = _read_config(opener(CONFIG_FILE), name)
    details = config.get("pretrained_cfg", config)  # older configurations have one level
    given = one_of(f"architecture of {name!r}", config["architecture"], ARCHITECTURES)
    architecture = ARCHITECTURES[given]
    _check_arguments(name, config)
    classes = check_count("num_classes", config.get("num_classes", details.get("num_classes", 1000)), least=0)
    path = opener(*WEIGHTS_FILES)
    tensors = read_tensors(path)
    _check_head(name, tensors, architecture.family, classes)
    return WeightsRecord(
        model=architecture.model,
        tag=name,
        family=architecture.family,
        lineage=architecture.lineage,
        sources=(LocalFile(path=os.fspath(path), tensors=tensors),),
        preprocessing=_preprocessing(name, details),
        dataset="",
        class_names=_class_names(name, {**details, **config}, classes),
        classes=classes,
    )


def _on_hub(name: str) -> _Opener:
    repository, _, revision = name.removeprefix(HUB).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"A repository is named hf-hub:OWNER/REPO, or hf-hub:OWNER/REPO@REVISION; received {name!r}.")
    return lambda *files: fetch_from_repository(repository, *files, revision=revision or "main")


def _in_folder(path: str) -> _Opener:
    folder = pathlib.Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder at {path!r}.")

    def opener(*files: str) -> pathlib.Path:
        found = [folder / file for file in files if (folder / file).is_file()]
        if not found:
            raise FileNotFoundError(f"A network in timm's layout has {' or '.join(files)}; {path!r} has none.")
        return found[0]

    return opener


def _read_config(path: pathlib.Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:  # also of a wrong encoding
        raise ValueError(f"The {CONFIG_FILE} of {name!r} is not JSON: {error}.") from error
    details = config.get("pretrained_cfg", {}) if isinstance(config, dict) else None
    if not isinstance(details, dict) or not isinstance(config.get("architecture"), str):
        raise ValueError(
            f"The {CONFIG_FILE} of {name!r} is not that of a timm network: it must state `architecture`, and "
            "`pretrained_cfg` as an object."
        )
    return config


def _check_arguments(name: str, config: Mapping[str, Any]) -> None:
    """Refuses what changes the computation of timm's network."""
    arguments = {"global_pool": config.get("global_pool", "avg"), **(config.get("model_args") or {})}
    others = {key: value for key, value in arguments.items() if key not in _HARMLESS}
    if arguments["global_pool"] not in _POOLINGS:
        others["global_pool"] = arguments["global_pool"]
    if others:
        raise ValueError(
            f"{name!r} was built with {', '.join(f'{key}={value!r}' for key, value in others.items())}, which changes "
            "timm's network into one that this package does not have."
        )


def _check_head(name: str, tensors: Mapping[str, np.ndarray], family: str, classes: int) -> None:
    (kernel,) = FAMILIES[family].classifier("kernel").tensors
    found = len(tensors[kernel]) if kernel in tensors else None
    if found is not None and found != classes:
        raise ValueError(f"The {CONFIG_FILE} of {name!r} states {classes} classes, but its weights have {found}.")


def _preprocessing(name: str, details: Mapping[str, Any]) -> Preprocessing:
    """Returns the preprocessing that a configuration states, with timm's defaults where it states none."""
    if details.get("crop_mode", "center") != "center":
        warnings.warn(
            f"{name!r} crops images in the mode {details['crop_mode']!r}. This package has only 'center', so "
            "outputs for images that are not square may differ.",
            stacklevel=5,
        )
    own = Preprocessing()
    try:
        channels, height, width = details.get("input_size") or (3, 224, 224)
        stated = Preprocessing(
            size=height if height == width else (height, width),
            crop=details.get("crop_pct") or own.crop,
            interpolation=details.get("interpolation") or "bicubic",
            mean=tuple(details.get("mean") or own.mean),
            std=tuple(details.get("std") or own.std),
        )
        return stated.for_channels(check_count("channels", channels))
    except (TypeError, ValueError) as error:
        raise ValueError(f"This package does not support the preprocessing of {name!r}: {error}") from error


def _class_names(name: str, config: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """Returns the names that a configuration states: the descriptions of its labels, where all differ."""
    stated = config.get("label_names", config.get("labels"))
    if not stated or classes == 1:  # one name, where one output has two classes
        return ()
    what = f"the label names of {name!r}"
    labels = check_class_names(_in_order(stated), classes, what=what)
    if labels == tuple(wnid for wnid, _ in imagenet_classes()):
        return ()
    described = config.get("label_descriptions") or {}
    descriptions = tuple(described[label] for label in labels if described.get(label))
    return descriptions if len(set(descriptions)) == classes else labels


def _in_order(stated: Mapping[str, str] | Sequence[str]) -> Sequence[str]:
    """Returns label names by the index of their output; an index without a name ends them."""
    if not isinstance(stated, Mapping):
        return stated
    if not all(str(index).isdecimal() for index in stated):
        raise ValueError(f"Label names must be a list, or have output numbers as keys; received {dict(stated)!r}.")
    names = {int(index): label for index, label in stated.items()}
    return [names[index] for index in range(len(names)) if index in names]
