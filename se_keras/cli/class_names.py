"""The class names of the models that commands receive."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import keras

from se_keras.class_names import check_class_names, check_same_order, get_class_names
from se_keras.class_names_file import NAMES_FILE, read_class_names
from se_keras.surgery.outputs import scores_of


def class_names_for(name: str, model: keras.Model, file: str | None) -> tuple[str, ...]:
    """Returns a model's class names: from a file, its own, or from `labels.txt` next to the model.

    Args:
        name: The model, as named on the command line.
        model: The model.
        file: A file of class names. None if none was named.

    Returns:
        One name per class; () if none of these exists, or `labels.txt` has a different number of classes.

    Raises:
        FileNotFoundError: `file` does not exist.
        ValueError: A file of class names cannot be read, or `file` does not fit the model or
            has its own names in another order.
    """
    classes = scores_of(model).classes
    if file is not None:
        what = f"the names in {file!r}"
        names = check_class_names(read_class_names(file), classes, what=what)
        check_same_order(names, get_class_names(model), what=what)
        return names
    return get_class_names(model) or names_beside(name, classes)


def names_beside(model: str, classes: int) -> tuple[str, ...]:
    """Returns the names in `labels.txt` next to a model's file, written by `se-keras train`; () if they do not fit."""
    file = pathlib.Path(model).parent / NAMES_FILE
    names: Sequence[str] = read_class_names(file) if os.path.exists(model) and file.is_file() else ()
    return tuple(names) if len(names) == classes else ()
