"""Reads `.npz` files, with errors that say which file is damaged."""

from __future__ import annotations

import os
from collections.abc import Collection

import numpy as np

from se_keras.file_kinds import damaged


def read_arrays(path: str | os.PathLike, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Reads arrays from an `.npz` file; pickled objects are never opened.

    Args:
        path: The file.
        names: Arrays to read, where they are there. Default: all.

    Returns:
        The arrays by name.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be opened.
        ValueError: It is damaged, no `.npz` file, or holds objects in place of numbers and texts.
    """
    with open(path, "rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as arrays:
                wanted = arrays.files if names is None else [name for name in arrays.files if name in names]
                return {name: _checked(arrays[name]) for name in wanted}
        except MemoryError:
            raise
        except Exception as error:  # of zipfile, zlib, tokenize and NumPy
            raise damaged(path, ".npz file", error, containers=("a zip archive",)) from error


def _checked(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "U":
        array.tolist()  # numbers that are no characters fail here, and not wherever a text is first looked at
    return array
