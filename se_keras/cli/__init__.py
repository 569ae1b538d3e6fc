"""The commands behind `se-keras`: each calls the library and prints the result."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable

Command = Callable[[argparse.Namespace], int]

_MODULES = {"list": "listing"}
"""The modules of commands whose names differ from them."""


def command_for(options: argparse.Namespace) -> Command:
    """Imports the module of a command, and Keras with it if the command computes anything.

    Args:
        options: The parsed command line.

    Returns:
        The function that runs the command and returns the exit code.
    """
    name = _MODULES.get(options.command, options.command)
    if options.command == "train" and options.recipes:
        name = "recipes"
    elif options.command == "info" and _is_record(options.model):
        name = "record"
    return importlib.import_module(f"se_keras.cli.{name}").run


def _is_record(name: str) -> bool:
    from se_keras.weights.timm_names import record_named

    return record_named(name) is not None


def wake_backend() -> None:
    """Makes the backend look for its devices now, while its messages are suppressed."""
    import keras

    keras.ops.convert_to_numpy(keras.ops.ones((1,)))


def import_layers(module: str) -> None:
    """Imports one of the user's modules, possibly from the working folder, and registers its layers with Keras.

    Args:
        module: Its name, as in an import statement.

    Raises:
        ImportError: There is no such module, or it fails.
        ValueError: It defines no layer and no function.
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
    keras.saving.get_custom_objects().update(own)  # including those that no decorator has registered
