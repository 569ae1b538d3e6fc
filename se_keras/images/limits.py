"""How large an image may be before it is decoded, so that no small file takes the memory of the machine."""

from __future__ import annotations

ANY_FILE_PIXELS = 2**24  # that any file may hold, however small
PIXELS_PER_BYTE = 16  # that larger files may hold for each of their bytes; photos have 1 to 12
MOST_PIXELS = 178_956_970  # whatever the file: where Pillow refuses by itself
MOST_ELONGATED = 100  # times that the longer side may exceed the shorter


def size_fault(width: int, height: int, file_bytes: int | None = None) -> str | None:
    """Why an image is too large or too elongated to be decoded and resized.

    Args:
        width: In pixels, as the head of the file states it.
        height: In pixels.
        file_bytes: Size of the encoded file; None for an image that is in memory already.

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
    """How many pixels a file may hold.

    Args:
        file_bytes: Its size.

    Returns:
        16.8 million, or 16 per byte where that is more; 179 million at most.
    """
    return min(MOST_PIXELS, max(ANY_FILE_PIXELS, PIXELS_PER_BYTE * file_bytes))
