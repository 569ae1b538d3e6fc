"""A reader of `.npz` files, whose errors name the damaged file."""

from __future__ import annotations

import os
from collections.abc import Collection

import numpy as np

from se_keras.file_kinds import damaged


def read_arrays(path: str | os.PathLike, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Reads arrays from an `.npz` file. Pickled objects are never loaded.

    Args:
        path: The file.
        names: Arrays to read, if they exist. Default: all.

    Returns:
        The arrays by name.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The file cannot be opened.
        ValueError: The file is damaged, not an `.npz` file, or contains objects instead of numbers and strings.
    """
    with open(path, "rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as arrays:
                wanted = arrays.files if names is None else [name for name in arrays.files if name in names]
                return {name: _checked(arrays[name]) for name in wanted}
        except MemoryError:
            raise
        except Exception as error:  # from zipfile, zlib, tokenize, or NumPy
            raise damaged(path, ".npz file", error, containers=("a zip archive",)) from error


def _checked(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "U":
        array.tolist()  # invalid code points fail here, not wherever the string is first used
    return array
