"""Writing files so that a half-written one is never found under its final name."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, overwrite: bool) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside the final one, and renames it when the block ends without an error.

    Args:
        path: The final path of a file or folder.
        overwrite: Whether something that exists there may be replaced.

    Yields:
        The path to write to; nothing exists there yet.

    Raises:
        FileExistsError: Something exists at `path` and `overwrite` is False.
    """
    final = pathlib.Path(path)
    if final.exists() and not overwrite:
        raise FileExistsError(f"{os.fspath(final)!r} exists already. Pass overwrite=True to replace it.")
    final.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield folder / final.name
        if final.is_dir():
            shutil.rmtree(final)
        (folder / final.name).replace(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
