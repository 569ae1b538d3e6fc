"""Loads the models that commands receive: files, or networks with published weights."""

from __future__ import annotations

import os
from typing import Any

import keras

from se_keras.model_files import read_model
from se_keras.models.registry import NETWORKS, create_model, list_weights
from se_keras.weights.published import DEFAULT_TAGS
from se_keras.weights.timm_layout import is_layout
from se_keras.weights.timm_names import ARCHITECTURES

EXPORTED = (".tflite", ".onnx", ".xml", ".h5")
"""Endings of files that are no name of a checkpoint."""


def check_file(path: str) -> None:
    """Rejects a path that cannot be a .keras file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no model file at {path!r}.")
    if not path.endswith(".keras"):
        raise ValueError(
            f"A model file must end in .keras; received {path!r}. Exported files can be passed to `info`, `evaluate`, "
            "`verify`, and `benchmark`."
        )


def check_name(name: str) -> None:
    """Rejects a name of a model that can only be meant as a path."""
    if _is_network(name):
        return
    if os.path.isdir(name):
        models = sorted(entry for entry in os.listdir(name) if entry.endswith(".keras"))
        inside = f", such as {os.path.join(name, models[-1])!r}" if models else ""
        raise IsADirectoryError(f"{name!r} is a folder: pass a .keras file{inside}, or the name of a network.")
    if os.sep in name or name.endswith(EXPORTED):
        raise FileNotFoundError(f"There is no model file at {name!r}.")


def _is_network(name: str) -> bool:
    network = name.partition(".")[0]
    return network in NETWORKS or network in ARCHITECTURES or is_layout(name)


def load_file(path: str) -> keras.Model:
    """Returns the model in a .keras file, for inference."""
    check_file(path)
    return read_model(path)


def load(name: str) -> keras.Model:
    """Returns the model in a .keras file, or a network with published weights."""
    return load_file(name) if name.endswith(".keras") or os.path.isfile(name) else published(name)


def load_or_path(name: str) -> keras.Model | str:
    """Returns the path of an exported file that is not a .keras file, else as in `load`."""
    return name if is_path(name) and not name.endswith(".keras") else load(name)


def is_path(name: str) -> bool:
    """Returns whether a name is that of a file or folder; only a SavedModel goes before a network of the same name."""
    if not os.path.isdir(name) or os.path.isfile(os.path.join(name, "saved_model.pb")):
        return os.path.exists(name)
    return not _is_network(name)


def published(name: str, **options: Any) -> keras.Model:
    """Returns a network with published weights: `model.tag`, or the default ones without a tag."""
    check_name(name)
    return create_model(checkpoint_of(name), **options)


def checkpoint_of(name: str) -> str:
    """Returns the checkpoint that a name stands for: itself, or the default one of a network."""
    if "." in name or is_layout(name):
        return name
    own = list_weights(name) if name in NETWORKS else []
    return f"{name}.imagenet" if name in DEFAULT_TAGS or not own else own[0]
