"""Tables about a set of images that take long to make and are kept beside it."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable

import numpy as np

from se_keras.array_files import read_arrays
from se_keras.files import replacing


def kept(path: pathlib.Path, stamp: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What a file holds, made anew if it is missing, unreadable or out of date.

    Args:
        path: An `.npz` file; replaced in one step, so that several processes may make it at once. Where it cannot be
            written, e.g. beside images on a disk that only allows reading, nothing is kept.
        stamp: Changes when what the table is about changes.
        make: Makes the table.

    Returns:
        The arrays by name.
    """
    try:
        table = read_arrays(path)
        if str(table.pop("stamp", "")) == stamp:
            return table
    except (OSError, ValueError):
        pass  # there is none, or none that can be read
    table = make()
    with contextlib.suppress(OSError), replacing(path, overwrite=True) as temporary:
        np.savez(temporary, **{**table, "stamp": np.array(stamp)})
    return table
