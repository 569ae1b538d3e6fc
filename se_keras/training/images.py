"""Encoded images, from files or from records: their pixels, and why one has none."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from se_keras.preprocessing import to_rgb

_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError)


def decode(encoded: bytes, where: str) -> np.ndarray:
    """The pixels of an encoded image.

    Args:
        encoded: The bytes of a JPEG, PNG or any other file that Pillow reads.
        where: What to call it in an error.

    Returns:
        Upright RGB, uint8, 0 to 255, shape (height, width, 3).

    Raises:
        ValueError: They are no image, or a truncated one.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(to_rgb(image))
    except _UNREADABLE as error:
        raise ValueError(f"The image of {where} cannot be read: {_reason(error)}") from error


def fault(file: str | os.PathLike | BinaryIO) -> str | None:
    """Why a file is no readable image: it is read whole, a JPEG at an eighth of its size.

    Args:
        file: Path or stream.

    Returns:
        One sentence, or None for an image that can be read.
    """
    try:
        with Image.open(file) as image:
            image.draft("RGB", (1, 1))
            image.load()
    except _UNREADABLE as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    # Pillow names a file or, for bytes, an address in memory.
    return "cannot identify it as an image" if isinstance(error, UnidentifiedImageError) else str(error)
