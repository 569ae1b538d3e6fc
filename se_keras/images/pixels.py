"""Conversion of pixels of any depth, range, and color model to upright 8-bit RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112  # the tag in EXIF data and TIFF files
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an opened image of any kind to upright RGB.

    Args:
        image: Gray (1, 8, 16, or 32 bits, or floats), with a palette or transparency, CMYK, or rotated by EXIF data.

    Returns:
        A PIL image of mode "RGB". Transparency is dropped. Unreadable EXIF data is ignored. The orientation may also be
        in a PNG's raw profile or in XMP, as in `PIL.ImageOps.exif_transpose`.

    Raises:
        ValueError: The values are outside the ranges of `as_rgb`, or Pillow cannot convert the color model.
    """
    image.load()  # a PNG may have its EXIF data after the pixels, and Pillow turns a TIFF itself
    orientation = exif_orientation(image)
    image = as_rgb(image)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def exif_orientation(image: Image.Image) -> int:
    """Returns the orientation that a camera wrote into a photo.

    Args:
        image: A loaded image.

    Returns:
        1 to 8, as in the EXIF standard; 1, which is upright, if the data states none or is damaged.
    """
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # parsing unknown bytes may raise anything; the photo itself is intact
        return 1
    return found if found in _TURNS else 1


def as_rgb(image: Image.Image) -> Image.Image:
    """Converts an opened image to 8-bit RGB, without rotating it.

    Args:
        image: 16-bit integers range to 65,535; 32-bit integers to 255 or 65,535, floats to 1 or 255, whichever is the
            smaller one that covers all values.

    Returns:
        A PIL image of mode "RGB".

    Raises:
        ValueError: The values are outside these ranges, or Pillow cannot convert the color model.
    """
    image.load()
    if image.mode.startswith("I"):
        image = _from_integers(image)
    elif image.mode == "F":
        image = _from_floats(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_integers(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"gray integers must be from 0 to 65,535; received {low} to {high}")
    is_byte = image.mode == "I" and high <= 255  # 16-bit modes determine their own range
    return Image.fromarray((values if is_byte else values // 257).astype("uint8"))


def _from_floats(image: Image.Image) -> Image.Image:
    low, high = _extremes(np.asarray(image))
    if not (low >= 0 and high <= 255):
        raise ValueError(f"gray floats must be from 0 to 1 or from 0 to 255; received {low:.4g} to {high:.4g}")
    scale = 255 if high <= 1 else 1
    return image.point(lambda value: value * scale + 0.5).convert("L")


def _extremes(values: np.ndarray) -> tuple[float, float]:
    """Returns the minimum and maximum; NaN if any value is NaN."""
    return float(values.min()), float(values.max())


def check_pixels(image: np.ndarray) -> None:
    """Rejects arrays that are not RGB pixels of 0 to 255.

    Args:
        image: Array of any shape.

    Raises:
        ValueError: The dtype is not an integer or float, or a value is NaN, below 0, or above 255.
    """
    check_numbers(image)
    if image.size and image.dtype != np.uint8:
        low, high = _extremes(image)
        if not (low >= 0 and high <= 255):
            raise ValueError(
                f"Image values must be between 0 and 255; received {low:.4g} to {high:.4g}. "
                "Undo any normalization first: the network does its own."
            )


def check_numbers(images: np.ndarray) -> None:
    """Rejects arrays of anything but real numbers.

    Args:
        images: Array of any shape.

    Raises:
        ValueError: The dtype is not an integer or float; those of `ml_dtypes`, such as bfloat16, count as floats.
    """
    dtype = images.dtype
    is_extension = dtype.kind == "V" and dtype.names is None and "float" in dtype.name
    if dtype.kind not in "iuf" and not is_extension:
        raise ValueError(
            f"Image values must be integers or floats from 0 to 255; received dtype {dtype}. Convert them with "
            "`.astype('float32')`, and multiply booleans by 255."
        )


def is_divided(images: np.ndarray) -> bool:
    """Returns whether pixels of 0 to 255 seem to have been divided by 255, the most common mistake.

    Args:
        images: Array of any shape.

    Returns:
        True for floats from 0 to 1 that are not all 0.
    """
    return images.dtype.kind not in "iu" and images.size > 0 and 0 < float(images.max()) <= 1
