"""Reading of image files and encoded images: their pixels, or the reason why they have none.

All code that reads photos uses this module: a file gets the same verdict in training, evaluation, prediction,
calibration, and verification.
"""

from __future__ import annotations

import concurrent.futures
import errno
import io
import os
import stat
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from se_keras.images.folders import unread_format
from se_keras.images.limits import size_fault
from se_keras.images.pixels import as_rgb, to_rgb
from se_keras.progress import tracked

# Pillow's names. EPS is not included, because Pillow passes it to Ghostscript whatever the file's name.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
EMPTY = "empty (0 bytes)"
_OF_THE_SYSTEM = {
    getattr(errno, name, None)
    for name in (
        *("EMFILE", "ENFILE", "ENOMEM", "EINTR", "EAGAIN", "EIO", "ENXIO", "ENODEV", "EREMOTEIO", "ESTALE"),
        *("ETIMEDOUT", "ENOTCONN", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    )
} - {None}
"""Error numbers; some systems lack some of them."""

Faults = tuple[tuple[str | os.PathLike[str], str], ...]


def load_image(path: str | os.PathLike) -> Image.Image:
    """Reads an image file as upright RGB.

    Args:
        path: A file in one of `FORMATS`, with any name. Of an animation, the first frame is read. The size must be
            within the limits of `limits.size_fault`.

    Returns:
        A PIL image of mode "RGB".

    Raises:
        FileNotFoundError: The file does not exist.
        MemoryError, OSError: There is too little memory, or the disk fails, which says nothing about the image.
        ValueError: The file is empty, truncated, too large, or not an image; the message names it.
    """
    if not os.path.lexists(path) or os.path.isdir(path):
        raise FileNotFoundError(f"There is no image file at {os.fspath(path)!r}.")
    image, reason = _attempt(path, to_rgb)
    if reason == EMPTY:
        raise ValueError(f"The image file {os.fspath(path)!r} is empty (0 bytes).")
    if image is None:
        raise ValueError(f"The file {os.fspath(path)!r} cannot be read as an image: {reason}.")
    return image


def decode(encoded: bytes, where: str) -> np.ndarray:
    """Returns the pixels of an encoded image.

    Args:
        encoded: The bytes of a file that `load_image` can read.
        where: Name of the image in an error.

    Returns:
        Upright RGB, uint8, 0 to 255, shape (height, width, 3).

    Raises:
        ValueError: The bytes are not an image, or one that `load_image` rejects.
    """
    image, reason = _attempt(io.BytesIO(encoded), to_rgb)
    if image is None:
        raise ValueError(f"The image of {where} cannot be read: {reason}.")
    return np.asarray(image)


def fault(file: str | os.PathLike | BinaryIO) -> str | None:
    """Returns why a file is not a readable image. Reads the whole file; a JPEG at 1/8 of its size.

    Args:
        file: Path or stream.

    Returns:
        One clause, or None for an image that can be read.
    """
    return _attempt(file, _drafted)[1]


def separated(files: Sequence[str | os.PathLike[str]], *, verbose: str | int = 0) -> tuple[list[int], Faults]:
    """Separates files that can be read as images from those that cannot.

    Args:
        files: Paths.
        verbose: "auto" or 1 to show a progress bar, 0 to show none.

    Returns:
        Positions of the readable files; and the other files, each with the reason.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = [pool.submit(fault, file) for file in files]
        reasons = [check.result() for check in tracked(running, "Checking images", verbose=verbose)]
    readable = [index for index, reason in enumerate(reasons) if reason is None]
    return readable, tuple((file, reason) for file, reason in zip(files, reasons, strict=True) if reason is not None)


def is_system_failure(error: BaseException) -> bool:
    """Returns whether the system failed, and not an image: too little memory, too many open files, a lost disk.

    Args:
        error: An error while the image was read.

    Returns:
        Whether another attempt may succeed.
    """
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM)


def _name(error: Exception, file: str | os.PathLike | BinaryIO) -> None:
    """Adds the file's name to the message of an error of the system, unless it is there."""
    if isinstance(error, OSError) and error.filename is None and isinstance(file, str | os.PathLike):
        error.filename = os.fspath(file)


def _drafted(image: Image.Image) -> Image.Image:
    image.draft("RGB", (1, 1))
    return as_rgb(image)


def _attempt(
    file: str | os.PathLike | BinaryIO, read: Callable[[Image.Image], Image.Image]
) -> tuple[Image.Image | None, str | None]:
    """Returns the result of `read` for a file, or the reason why there is none."""
    try:
        size = _size(file)
        if size == 0:
            return None, EMPTY
        with Image.open(file, formats=FORMATS) as image:
            # As TIFF, Pillow would read the small preview in a camera's raw photo.
            unread = _unread(file) if image.format == "TIFF" else None
            reason = unread or size_fault(image.width, image.height, size)
            return (None, reason) if reason else (read(image), None)
    except UnidentifiedImageError:  # its message names a file or, for bytes, a memory address
        return None, _unread(file) or f"it is not an image in one of the formats {', '.join(FORMATS)}"
    except FileNotFoundError:
        return None, "it is a link to a file that does not exist" if _is_link(file) else "there is no such file"
    except Exception as error:  # decoders raise many errors on unknown bytes, and none may end a run
        if is_system_failure(error):
            _name(error, file)
            raise
        return None, f"{error}".rstrip(".") or type(error).__name__


def _unread(file: str | os.PathLike | BinaryIO) -> str | None:
    """Returns why a file whose name states another format is not read."""
    name = unread_format(os.fspath(file)) if isinstance(file, str | os.PathLike) else None
    return name and f"{name} is not supported: convert it to JPEG or PNG"


def _size(file: str | os.PathLike | BinaryIO) -> int:
    """Returns the size of a file in bytes. Rejects pipes, which would block forever."""
    if not isinstance(file, str | os.PathLike):
        return file.seek(0, io.SEEK_END)
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    return status.st_size


def _is_link(file: str | os.PathLike | BinaryIO) -> bool:
    return isinstance(file, str | os.PathLike) and os.path.islink(file)
