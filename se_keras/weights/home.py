"""Where downloaded and converted weights live."""

from __future__ import annotations

import os
import pathlib


def cache_folder() -> pathlib.Path:
    """The folder of the package's own cache.

    Returns:
        `SE_KERAS_HOME` where that is set, else `~/.cache/se_keras` (under `XDG_CACHE_HOME` if
        that is set). It need not exist.
    """
    if home := os.environ.get("SE_KERAS_HOME"):
        return pathlib.Path(home).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "se_keras"
