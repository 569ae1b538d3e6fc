"""The commands behind `se-keras`: each is one call into the library, and printing."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

import keras


def wake_backend() -> None:
    """Lets the backend look for its devices now, while its messages are held back."""
    keras.ops.convert_to_numpy(keras.ops.ones((1,)))


def _command(module: str) -> Callable[[argparse.Namespace], int]:
    """`run` of one of this package's modules, which is imported when it is called."""

    def run(options: argparse.Namespace) -> int:
        return importlib.import_module(f"se_keras.cli.{module}").run(options)

    return run


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _command("listing"),
    "info": _command("info"),
    "convert": _command("convert"),
    "predict": _command("predict"),
    "train": _command("train"),
    "evaluate": _command("evaluate"),
    "insert": _command("insert"),
    "analyze": _command("analyze"),
    "export": _command("export"),
    "verify": _command("verify"),
    "benchmark": _command("benchmark"),
    "demo": _command("demo"),
}
