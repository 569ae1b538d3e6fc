"""Resizing and cropping of images of any size to a network's input size."""

from __future__ import annotations

import dataclasses
import math

from PIL import Image

from se_keras.images.limits import size_fault
from se_keras.images.record import Preprocessing

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_PIXELS_AT_ONCE = 2**24  # of a resized image before it is cropped


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The position of a network's input in a resized image, in pixels.

    Args:
        width: Width of the whole resized image.
        height: Height of the whole resized image.
        left: Left edge of the crop.
        top: Top edge of the crop.
    """

    width: int
    height: int
    left: int
    top: int


def geometry(width: int, height: int, record: Preprocessing) -> Geometry:
    """Computes how an image is resized and cropped: the shorter side exactly, the longer side cut to whole pixels.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        record: Size and crop of the input.

    Returns:
        The geometry, as torchvision computes it.
    """
    rows, columns = record.height_width
    scale = max(math.floor(rows / record.crop) / height, math.floor(columns / record.crop) / width)
    new_width, new_height = max(int(width * scale + 1e-6), columns), max(int(height * scale + 1e-6), rows)
    return Geometry(new_width, new_height, round((new_width - columns) / 2), round((new_height - rows) / 2))


def resized_and_cropped(image: Image.Image, record: Preprocessing) -> Image.Image:
    """Resizes the shorter side with antialiasing and crops the center.

    Args:
        image: Image of any mode that Pillow can resize.
        record: Size, crop, and interpolation.

    Returns:
        An image of the record's size. If the whole resized image would have more than 16.8 million pixels,
        only the crop is computed.

    Raises:
        ValueError: One side is too long in proportion to the other.
    """
    reason = size_fault(image.width, image.height)
    if reason:
        raise ValueError(f"The image cannot be resized: {reason}.")
    height, width = record.height_width
    found, resampling = geometry(image.width, image.height, record), _RESAMPLING[record.interpolation]
    box = (found.left, found.top, found.left + width, found.top + height)
    if found.width * found.height <= _PIXELS_AT_ONCE:
        return image.resize((found.width, found.height), resampling).crop(box)
    # Computes only the part inside the crop; Pillow takes its corners as 32-bit floats.
    across, down = image.width / found.width, image.height / found.height
    left, top, right, bottom = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    return image.resize((width, height), resampling, (left, top, min(right, image.width), min(bottom, image.height)))
