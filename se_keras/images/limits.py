"""Limits on the size of an image before it is decoded: no small file can use up the machine's memory."""

from __future__ import annotations

ANY_FILE_PIXELS = 2**24  # that any file may contain, however small
PIXELS_PER_BYTE = 16  # that larger files may contain per byte; photos have 1 to 12
MOST_PIXELS = 178_956_970  # for any file: Pillow's own limit
MOST_ELONGATED = 100  # maximum ratio of the longer side to the shorter


def size_fault(width: int, height: int, file_bytes: int | None = None) -> str | None:
    """Returns why an image is too large or too elongated to be decoded and resized.

    Args:
        width: Width in pixels, as the file's header states it.
        height: Height in pixels.
        file_bytes: Size of the encoded file. None for an image that is already in memory.

    Returns:
        A clause that states the limit and the size, or None for an image within the limits.
    """
    if min(width, height) < 1:
        return f"it has {width}x{height} pixels"
    if max(width, height) > MOST_ELONGATED * min(width, height):
        return (
            f"one side may be at most {MOST_ELONGATED} times as long as the other; it has {width}x{height} pixels. "
            "Cut it into parts"
        )
    if file_bytes is not None and width * height > pixels_allowed(file_bytes):
        return (
            f"a file of {file_bytes} bytes may hold at most {pixels_allowed(file_bytes)} pixels; it has "
            f"{width}x{height}. Make it smaller"
        )
    return None


def pixels_allowed(file_bytes: int) -> int:
    """Returns how many pixels a file may contain.

    Args:
        file_bytes: Size of the file.

    Returns:
        16.8 million, or 16 per byte where that is more; at most 179 million.
    """
    return min(MOST_PIXELS, max(ANY_FILE_PIXELS, PIXELS_PER_BYTE * file_bytes))
