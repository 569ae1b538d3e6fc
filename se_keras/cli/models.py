"""The models that commands are given: files, or networks with published weights, and the names of their classes."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import keras

from se_keras.model_files import read_model
from se_keras.models.registry import NETWORKS, create_model, list_weights
from se_keras.weights.published import DEFAULT_TAGS, RECORDS


def check_file(path: str) -> None:
    """Refuses what cannot be a .keras file."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no model file at {path!r}.")
    if not path.endswith(".keras"):
        raise ValueError(f"A model is read from a file that ends in .keras; received {path!r}.")


def load_file(path: str) -> keras.Model:
    """The model in a .keras file, for inference."""
    check_file(path)
    return read_model(path)


def load(name: str) -> keras.Model:
    """The model in a .keras file, or a network with published weights."""
    return load_file(name) if name.endswith(".keras") or os.path.isfile(name) else published(name)


def published(name: str, **options: Any) -> keras.Model:
    """A network with published weights: `model.tag`, or its default ones without a tag."""
    return create_model(checkpoint_of(name), **options)


def checkpoint_of(name: str) -> str:
    """The published weights that a name stands for: itself, or the default ones of a network."""
    if "." in name:
        return name
    own = list_weights(name) if name in NETWORKS else []
    return f"{name}.imagenet" if name in DEFAULT_TAGS or not own else own[0]


def class_names_of(name: str) -> tuple[str, ...]:
    """The classes of published weights that are not ImageNet's; () for those that are, and for files."""
    model, _, tag = name.partition(".")
    if not os.path.exists(name) and model in NETWORKS and (tag or list_weights(model)):
        record = RECORDS.get(checkpoint_of(name))
        return record.class_names if record else ()
    return ()


def labels_beside(model: str, classes: int) -> list[str]:
    """The classes in `labels.txt` beside a model's file, as `se-keras train` leaves it; [] if there are not as many."""
    file = pathlib.Path(model).parent / "labels.txt"
    labels = lines_of(file) if os.path.exists(model) and file.is_file() else []
    return labels if len(labels) == classes else []


def lines_of(path: str | os.PathLike) -> list[str]:
    """The lines of a text file that are not blank, without the space around them."""
    with open(path, encoding="utf-8") as lines:
        return [line.strip() for line in lines if line.strip()]
