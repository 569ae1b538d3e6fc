"""The location of downloaded and converted weights."""

from __future__ import annotations

import os
import pathlib


def cache_folder() -> pathlib.Path:
    """Returns the folder of the package's own cache.

    Returns:
        `SE_KERAS_HOME` if it is set, else `~/.cache/se_keras` (under `XDG_CACHE_HOME` if
        that is set). The folder may not exist yet.
    """
    if home := os.environ.get("SE_KERAS_HOME"):
        return pathlib.Path(home).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "se_keras"
