"""A reader of `.keras` files that uses Keras, but whose errors say which file is wrong and why.

Keras documents no way to read the configuration of a model without building it: this is the only module that opens the
archive for it.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from typing import Any

import keras

from se_keras.file_kinds import damaged

_LONGEST_REASON = 400


def read_model(path: str | os.PathLike) -> keras.Model:
    """Loads a model for inference.

    Args:
        path: A `.keras` file.

    Returns:
        The model, not compiled.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, or contains layers that Keras does not know; the message names them.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no model file at {path!r}.")
    try:
        return keras.models.load_model(path, compile=False)
    except MemoryError:
        raise
    except Exception as error:  # Keras passes any error through: KeyError, TypeError, BadZipFile, AttributeError, ...
        raise _unreadable(path, error) from error


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the configuration of the model in a `.keras` file, without building anything.

    Args:
        path: A `.keras` file.

    Returns:
        The content as Keras wrote it: "class_name", "config", and more.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(json.loads(archive.read("config.json")))
    except Exception as error:  # anything that zipfile or JSON raises on such bytes
        raise damaged(path, ".keras file", error, containers=("a zip archive",)) from error


def _unreadable(path: str, error: Exception) -> ValueError:
    """Returns the error that says why a `.keras` file cannot be loaded."""
    try:
        unknown = sorted(set(_unknown_classes(read_config(path))))
        with zipfile.ZipFile(path) as archive:
            damaged_part = archive.testzip()
    except ValueError as problem:
        return problem
    except Exception as problem:
        return damaged(path, ".keras file", problem, containers=("a zip archive",))
    if unknown:
        return ValueError(
            f"{path!r} contains {', '.join(unknown)}, which Keras does not know. Import the module that defines it "
            "before loading (--import MODULE on the command line), or pass custom_objects to keras.models.load_model."
        )
    if not damaged_part and (faulty := _not_remade(read_config(path))):
        return ValueError(f"{path!r} cannot be loaded: {faulty}")
    if damaged_part or not isinstance(error, TypeError | ValueError):
        return damaged(path, ".keras file", damaged_part or error, containers=("a zip archive",))
    return ValueError(f"{path!r} cannot be loaded: {' '.join(str(error).split())[:_LONGEST_REASON]}")


def _not_remade(config: Any) -> str:
    """Returns the reason why a user's class cannot be made from its own part of a model's configuration, or ""."""
    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for part in parts:
        if reason := _not_remade(part):
            return reason
    if not isinstance(config, dict) or not _is_of_a_user(config):
        return ""
    try:
        keras.saving.deserialize_keras_object(config)
    except Exception as error:  # whatever the class raises
        name, kind = config.get("config", {}).get("name"), config["class_name"]
        return (
            f"{kind}.from_config does not take what {kind}.get_config wrote for {name!r}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST_REASON]}. Correct the class."
        )
    return ""


def _is_of_a_user(config: dict[str, Any]) -> bool:
    module = config.get("module", "keras")
    is_class = isinstance(config.get("class_name"), str) and isinstance(config.get("config"), dict)
    return is_class and config.get("registered_name") is not None and str(module).partition(".")[0] != "keras"


def _unknown_classes(config: Any) -> Iterator[str]:
    """Yields the names of the classes in a model's configuration that are neither Keras' own nor registered."""
    if isinstance(config, dict):
        module, name = config.get("module"), config.get("class_name")
        foreign = isinstance(module, str) and module.split(".")[0] not in ("keras", "builtins")
        if foreign and keras.saving.get_registered_object(config.get("registered_name") or name) is None:
            yield f"{module}.{name}"
    values = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for value in values:
        yield from _unknown_classes(value)
