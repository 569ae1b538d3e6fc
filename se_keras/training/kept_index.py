"""Tables about a set of images that are slow to make and therefore kept next to it."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable

import numpy as np

from se_keras.array_files import read_arrays
from se_keras.files import replacing


def kept(path: pathlib.Path, stamp: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the table in a file, or makes it again if the file is missing, unreadable, or out of date.

    Args:
        path: An `.npz` file, replaced atomically: several processes may make it at once. If it cannot be written, for
            example next to images on a read-only disk, nothing is kept.
        stamp: A string that changes when the images of the table change.
        make: Makes the table.

    Returns:
        The arrays by name.
    """
    try:
        table = read_arrays(path)
        if str(table.pop("stamp", "")) == stamp:
            return table
    except (OSError, ValueError):
        pass  # there is no file, or it is unreadable
    table = make()
    with contextlib.suppress(OSError), replacing(path, overwrite=True) as temporary:
        np.savez(temporary, **{**table, "stamp": np.array(stamp)})
    return table
