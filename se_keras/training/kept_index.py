"""Tables about a set of images that take long to make and are kept beside it."""

from __future__ import annotations

import contextlib
import pathlib
import zipfile
from collections.abc import Callable

import numpy as np

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
        with open(path, "rb") as stream, np.load(stream) as arrays:
            if str(arrays["stamp"]) == stamp:
                return {name: arrays[name] for name in arrays.files if name != "stamp"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # there is none, or none that can be read
    table = make()
    with contextlib.suppress(OSError), replacing(path, overwrite=True) as temporary:
        np.savez(temporary, **{**table, "stamp": np.array(stamp)})
    return table
