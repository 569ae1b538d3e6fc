"""Where the commands find the names of a model's classes."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import keras

from se_keras.class_names import NAMES_FILE, check_class_names, read_class_names
from se_keras.cli.models import checkpoint_of
from se_keras.models.registry import NETWORKS, list_weights
from se_keras.surgery.outputs import scores_of
from se_keras.weights.published import RECORDS


def class_names_for(name: str, model: keras.Model, file: str | None) -> tuple[str, ...]:
    """The names of a model's classes: from a file, of published weights, or from `labels.txt` beside the model.

    Args:
        name: The model as it was named on the command line.
        model: The model.
        file: A file of class names; None: none was named.

    Returns:
        One name per class, or () if there is none of these, or `labels.txt` is of another number of classes.

    Raises:
        FileNotFoundError: `file` does not exist.
        ValueError: A file of class names that cannot be read, or `file` does not fit the model.
    """
    classes = scores_of(model).classes
    if file is not None:
        return check_class_names(read_class_names(file), classes, what=f"the names in {file!r}")
    return class_names_of(name) or names_beside(name, classes)


def class_names_of(name: str) -> tuple[str, ...]:
    """The classes of published weights that are not ImageNet's; () for those that are, and for files."""
    model, _, tag = name.partition(".")
    if not os.path.exists(name) and model in NETWORKS and (tag or list_weights(model)):
        record = RECORDS.get(checkpoint_of(name))
        return record.class_names if record else ()
    return ()


def names_beside(model: str, classes: int) -> tuple[str, ...]:
    """The classes in `labels.txt` beside a model's file, as `se-keras train` leaves it; () if there are not as many."""
    file = pathlib.Path(model).parent / NAMES_FILE
    names: Sequence[str] = read_class_names(file) if os.path.exists(model) and file.is_file() else ()
    return tuple(names) if len(names) == classes else ()
