"""The commands behind `se-keras`: each is one call into the library, and printing."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable

Command = Callable[[argparse.Namespace], int]

_MODULES = {"list": "listing"}
"""The module of a command where it is not called the same."""


def command_for(options: argparse.Namespace) -> Command:
    """Imports what the options ask for, and Keras with it where that computes.

    Args:
        options: The parsed command line.

    Returns:
        The function that carries it out and gives the exit code.
    """
    name = _MODULES.get(options.command, options.command)
    if options.command == "train" and options.recipes:
        name = "recipes"
    elif options.command == "info" and _is_record(options.model):
        name = "record"
    return importlib.import_module(f"se_keras.cli.{name}").run


def _is_record(name: str) -> bool:
    from se_keras.weights.published import RECORDS

    return name in RECORDS


def wake_backend() -> None:
    """Lets the backend look for its devices now, while its messages are held back."""
    import keras

    keras.ops.convert_to_numpy(keras.ops.ones((1,)))


def import_layers(module: str) -> None:
    """Imports a module of the user's, from the working folder too, and tells Keras of the layers in it.

    Args:
        module: Its name, as in an import statement.

    Raises:
        ImportError: There is no such module, or it fails.
        ValueError: It defines none.
    """
    import keras

    sys.path.append(os.getcwd())
    try:
        found = vars(importlib.import_module(module))
    except Exception as error:
        raise ImportError(f"--import {module}: {type(error).__name__}: {error}") from error
    package = module.partition(".")[0]
    own = {
        name: value
        for name, value in found.items()
        if callable(value) and getattr(value, "__module__", "").partition(".")[0] == package
    }
    if not own:
        raise ValueError(f"--import {module}: the module defines no layer and no function.")
    keras.saving.get_custom_objects().update(own)  # also those that no decorator has registered
