"""From pixels of any depth, range and color model to upright RGB of 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112  # the tag, in EXIF data and in TIFF files
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
    """An opened image of any kind as upright RGB.

    Args:
        image: Gray (of 1, 8, 16 or 32 bits, or floats), with a palette or transparency, CMYK, turned by its EXIF entry.

    Returns:
        A PIL image of mode "RGB". Transparency is dropped. EXIF data that cannot be read turn nothing.

    Raises:
        ValueError: Values outside of the ranges that `as_rgb` knows, or a color model that Pillow cannot convert.
    """
    orientation = exif_orientation(image)
    image = as_rgb(image)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def exif_orientation(image: Image.Image) -> int:
    """The orientation that a camera wrote into a photo.

    Args:
        image: An opened image.

    Returns:
        1 to 8 as in the EXIF standard; 1, which is upright, where the data state none or are damaged.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif") or b"")
        found = exif.get(_ORIENTATION)
    except Exception:  # a parser of other people's bytes raises whatever it stumbles over; the photo is whole
        return 1
    return found if found in _TURNS else 1


def as_rgb(image: Image.Image) -> Image.Image:
    """An opened image as RGB of 8 bits, not turned.

    Args:
        image: Integers of 16 bits reach to 65,535, those of 32 to 255 or 65,535, floats to 1 or 255: the lower one
            that holds all values.

    Returns:
        A PIL image of mode "RGB".

    Raises:
        ValueError: Values outside of these ranges, or a color model that Pillow cannot convert.
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
        raise ValueError(f"gray integers must lie from 0 to 65,535; received {low} to {high}")
    is_byte = image.mode == "I" and high <= 255  # 16 bits say by themselves how far they reach
    return Image.fromarray((values if is_byte else values // 257).astype("uint8"))


def _from_floats(image: Image.Image) -> Image.Image:
    low, high = _extremes(np.asarray(image))
    if not (low >= 0 and high <= 255):
        raise ValueError(f"gray floats must lie from 0 to 1 or from 0 to 255; received {low:.4g} to {high:.4g}")
    scale = 255 if high <= 1 else 1
    return image.point(lambda value: value * scale + 0.5).convert("L")


def _extremes(values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest value; NaN where one is NaN."""
    return float(values.min()), float(values.max())


def check_pixels(image: np.ndarray) -> None:
    """Refuses arrays that are no RGB pixels of 0 to 255.

    Args:
        image: Array of any shape.

    Raises:
        ValueError: A dtype other than integers and floats, NaN, or a value below 0 or above 255.
    """
    check_numbers(image)
    if image.size and image.dtype != np.uint8:
        low, high = _extremes(image)
        if not (low >= 0 and high <= 255):
            raise ValueError(
                f"Image values must lie between 0 and 255; received {low:.4g} to {high:.4g}. "
                "Undo any normalisation first: the network does its own."
            )


def check_numbers(images: np.ndarray) -> None:
    """Refuses arrays of anything but real numbers.

    Args:
        images: Array of any shape.

    Raises:
        ValueError: The dtype is none of integers and floats, those of `ml_dtypes` such as bfloat16 among them.
    """
    dtype = images.dtype
    is_extension = dtype.kind == "V" and dtype.names is None and "float" in dtype.name
    if dtype.kind not in "iuf" and not is_extension:
        raise ValueError(
            f"Image values must be integers or floats from 0 to 255; received dtype {dtype}. Convert them with "
            "`.astype('float32')`, booleans multiplied by 255."
        )


def is_divided(images: np.ndarray) -> bool:
    """Whether pixels of 0 to 255 seem to have been divided by 255, the most common mistake of all.

    Args:
        images: Array of any shape.

    Returns:
        True for floats from 0 to 1 that are not all 0.
    """
    return images.dtype.kind not in "iu" and images.size > 0 and 0 < float(images.max()) <= 1
