"""Images for calibrating a quantized file."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from se_keras.export.images import check_range, left_out, real_images
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import stored_preprocessing

LEAST_IMAGES = 100
MOST_IMAGES = 200


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The images that a file was calibrated with.

    Args:
        images: Float32 array of shape (n, height, width, channels).
        low: Their smallest value.
        high: Their largest value.
    """

    images: np.ndarray
    low: float
    high: float

    def facts(self) -> dict[str, Any]:
        """Returns the number of the images and their range, for a file's description."""
        return {"images": len(self.images), "range": [self.low, self.high]}

    def with_extremes(self) -> Calibration:
        """Returns these images with 0 and 255 among the pixels of the first.

        The scale of an integer input is then exactly 1: MediaPipe feeds pixels regardless of the file's scale.
        """
        images = self.images.copy()
        images[0, 0, 0], images[0, 0, 1] = 0.0, 255.0
        return dataclasses.replace(self, images=images)

    def batches(self, size: int) -> list[np.ndarray]:
        """Returns the images in batches of one size: all complete ones, and at least one."""
        images = self.images
        if len(images) < size:
            images = np.resize(images, (size, *images.shape[1:]))  # repeats them
        return [images[start : start + size] for start in range(0, len(images) - size + 1, size)]


def calibrate(
    data: Any, shape: Sequence[int], *, preprocessing: Preprocessing | None, least: int = LEAST_IMAGES
) -> Calibration:
    """Reads and checks the images for calibration.

    Args:
        data: A folder, an array, or a `tf.data` pipeline.
        shape: Height, width, and channels of the model's input.
        preprocessing: The preprocessing that the model includes, if any: it then expects pixels from 0 to 255.
        least: Required number of different images.

    Returns:
        At most 200 images, and their range. Files that cannot be read are skipped and named in a warning.

    Raises:
        ValueError: Fewer than `least` different images, values that are not finite, or images
            in the range 0 to 1 for a model that expects 0 to 255.
    """
    given = real_images(data, None, shape, record=preprocessing or Preprocessing(), most=MOST_IMAGES)
    if given.broken:
        warnings.warn(left_out(given.broken), stacklevel=3)
    found = given.images
    different = len({image.tobytes() for image in found})
    if different < least:
        raise ValueError(
            f"Calibration needs at least {least} different images, or it clips activations; received {len(found)} "
            f"images, {different} of them different. Pass more photos like those the model will see."
        )
    if not np.isfinite(found).all():
        raise ValueError("Calibration images must be finite; received NaN or infinite values.")
    low, high = float(found.min()), float(found.max())
    if preprocessing is not None:
        check_range(found)
    return Calibration(found, low, high)


def check_data(dtype: str, data: Any) -> None:
    """Rejects the lack of images for a precision that is calibrated.

    Args:
        dtype: The precision, for the message.
        data: As given.

    Raises:
        ValueError: It is None.
    """
    if data is None:
        raise ValueError(
            f"dtype={dtype!r} needs `data`: at least {LEAST_IMAGES} different images like those the model "
            "will see, as a folder, an array, or a tf.data pipeline."
        )


def calibration_for(model: keras.Model, data: Any) -> np.ndarray:
    """Reads the images for an "int8" file with a dynamic batch.

    Args:
        model: The model, with one input.
        data: As in `calibrate`, or None.

    Returns:
        Float32 array of shape (n, height, width, channels), at most 200 images.

    Raises:
        ValueError: As in `check_data` and `calibrate`, or the model has no fixed input size.
    """
    check_data("int8", data)
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise ValueError(
            f"dtype='int8' needs a fixed input size; the input of {model.name!r} is {shape}. Build the model with an "
            "`input_shape` that states height and width, and load the weights into it."
        )
    return calibrate(data, shape, preprocessing=stored_preprocessing(model)).images
