"""Samples for calibrating a quantized file."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from se_keras.export.images import (
    TRAINING,
    UNSTATED_PIXELS,
    check_range,
    is_of_files,
    left_out,
    part_of_folder,
    range_note,
)
from se_keras.export.inputs import IMAGE, Feed, Input, filled, part_of, rows_at, rows_of
from se_keras.export.model_ends import inputs_of
from se_keras.export.samples import is_of_images, is_of_pixels, real_samples
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import stored_preprocessing
from se_keras.spacing import evenly

CALIBRATION_IMAGES = 100  # 128 and 200 kept as many classes on CIFAR-10, and took longer
READ_IMAGES = 128  # so that 100 are left if some are broken or equal; 16 bits can spare the steps for a wider range


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The samples that a file was calibrated with.

    Args:
        feed: The inputs, in the order of the model's.
    """

    feed: Feed

    def facts(self) -> dict[str, Any]:
        """Returns the number and range of the samples, for a file's description; with several inputs, by name."""
        ranges = {name: [float(values.min()), float(values.max())] for name, values in self.feed.items()}
        only = next(iter(ranges.values())) if len(ranges) == 1 else ranges
        return {"images" if "images" in ranges else "samples": rows_of(self.feed), "range": only}

    def with_extremes(self) -> Calibration:
        """Returns these images with 0 and 255 among the pixels of the first.

        The scale of an integer input is then exactly 1: MediaPipe feeds pixels regardless of the file's scale.
        """
        ((name, values),) = self.feed.items()
        images = values.copy()
        pixels = images[0].reshape(-1, images.shape[-1])
        pixels[:1], pixels[1:2] = 0.0, 255.0
        return Calibration({name: images})

    def batches(self, size: int) -> list[dict[str, np.ndarray]]:
        """Returns the samples in batches of a fixed size, the last filled up with the last sample."""
        feed = filled(self.feed, -(-rows_of(self.feed) // size) * size)
        return [part_of(feed, start, start + size) for start in range(0, rows_of(feed), size)]


def calibrate(
    data: Any,
    inputs: Sequence[Input],
    *,
    preprocessing: Preprocessing | None,
    least: int = CALIBRATION_IMAGES,
    most: int = CALIBRATION_IMAGES,
) -> Calibration:
    """Reads and checks the samples for calibration.

    Args:
        data: As in `real_samples`. Of a folder with a training and a validation part, the first is read.
        inputs: The model's inputs.
        preprocessing: The preprocessing that the model includes, if any, which states how photos are cropped.
        least: Required number of different samples.
        most: Largest number of samples to use, at most 128.

    Returns:
        The samples. Files that cannot be read are skipped and named in a warning.

    Raises:
        ValueError: Fewer than `least` different samples, values that are not finite, or images
            in the range 0 to 1 for a model that expects 0 to 255.
    """
    data = part_of_folder(data, TRAINING)
    given = real_samples(data, None, inputs, record=preprocessing or Preprocessing(), most=READ_IMAGES)
    if given.broken:
        warnings.warn(left_out(given.broken), stacklevel=3)
    feed, count, different = given.feed, rows_of(given.feed), _different(given.feed)
    noun, more = ("images", "photos") if is_of_images(inputs) else ("samples", "samples")
    if len(different) < least:
        raise ValueError(
            f"Calibration needs at least {least} different {noun}: fewer clip activations; received {count} {noun}, "
            f"{len(different)} of them different. Pass more {more} like those the model will see."
        )
    if count > most:
        feed = rows_at(feed, [different[place] for place in evenly(len(different), most)])
    if not all(np.isfinite(values).all() for values in feed.values()):
        raise ValueError(f"Calibration {noun} must be finite; received NaN or infinite values.")
    if preprocessing is not None and is_of_images(inputs):
        check_range(given.images)
    elif is_of_pixels(inputs) and not inputs[0].is_whole:
        if note := range_note(given.images):
            warnings.warn(note, stacklevel=3)
    elif is_of_images(inputs) and not is_of_pixels(inputs) and is_of_files(data):
        warnings.warn(UNSTATED_PIXELS, stacklevel=3)
    return Calibration(dict(zip((one.name for one in inputs), feed.values(), strict=True)))


def _different(feed: Feed) -> list[int]:
    """Returns the indices of the samples that equal none before them."""
    first: dict[bytes, int] = {}
    for row in range(rows_of(feed)):
        digest = hashlib.sha256(b"".join(values[row].tobytes() for values in feed.values())).digest()
        first.setdefault(digest, row)
    return list(first.values())


def check_data(dtype: str, data: Any) -> None:
    """Checks that a precision that needs calibration comes with data.

    Args:
        dtype: The precision, for the message.
        data: As given.

    Raises:
        ValueError: It is None.
    """
    if data is None:
        raise ValueError(
            f"dtype={dtype!r} needs `data`: at least {CALIBRATION_IMAGES} different images like those the model "
            "will see, as a folder, an array, or a dataset; for other inputs, arrays by name."
        )


def calibration_for(model: keras.Model, data: Any) -> Feed:
    """Reads the samples for an "int8" file with a dynamic batch.

    Args:
        model: The model.
        data: As in `calibrate`, or None.

    Returns:
        The inputs in their order, at most 100 samples.

    Raises:
        ValueError: As in `check_data` and `calibrate`, or the model has no fixed input size.
    """
    check_data("int8", data)
    inputs = inputs_of(model)
    check_fixed(inputs, model.name, "dtype='int8'")
    return calibrate(data, inputs, preprocessing=stored_preprocessing(model)).feed


def check_fixed(inputs: Sequence[Input], model_name: str, what: str) -> None:
    """Rejects inputs without a fixed size.

    Args:
        inputs: The inputs of the model.
        model_name: The name of the model, for the message.
        what: What needs a fixed size, as the start of a sentence.

    Raises:
        ValueError: A dimension of an input has no fixed size.
    """
    for one in inputs:
        if None in one.shape:
            size = "an `input_shape` that states height and width" if one.kind == IMAGE else "a fixed-size keras.Input"
            raise ValueError(
                f"{what} needs a fixed input size; the input {one.name!r} of {model_name!r} is {one.shape}. Build the "
                f"model with {size}, and load the weights into it."
            )
