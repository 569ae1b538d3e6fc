"""Images for calibrating a quantized file, and the ranges of its tensors on them.

TensorFlow's converter can find these ranges itself, with plain kernels on one thread. That takes longer than the rest
of an export, and reads some tensors after others have overwritten them. Here the runtime's fast kernels find them.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from se_keras.export.images import check_range, left_out, real_images
from se_keras.export.runtime import TFLiteRunner
from se_keras.export.tensorflow_internals import schema_module
from se_keras.export.tflite_file import holds_data, packed, read_model
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import stored_preprocessing
from se_keras.progress import Advance

LEAST_IMAGES = 100
MOST_IMAGES = 200
MOST_BYTES = 256 * 2**20  # of tensors kept at a time to find their ranges


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


def with_ranges(content: bytes, batches: Sequence[np.ndarray], advance: Advance = lambda: None) -> bytes:
    """Records the minimum and maximum of each tensor over all batches in a float `.tflite` file.

    Args:
        content: The content of a file that the converter calibrated with any images, including the range of each
            tensor.
        batches: Arrays of the input's shape, at least one.
        advance: Called after each batch.

    Returns:
        The content with the ranges replaced, ready for quantization.

    Raises:
        ValueError: The values of a tensor are not finite.
    """
    model = read_model(content)
    tensors = model.subgraphs[0].tensors
    computed = [index for index, tensor in enumerate(tensors) if _is_computed_float(tensor, model.buffers)]
    parts = _parts(computed, [4 * int(np.prod(tensors[index].shape, dtype=np.int64)) for index in computed])
    silent = [lambda: None] * (len(parts) - 1)
    low, high = np.concatenate(
        [_ranges(model, part, batches, tell) for part, tell in zip(parts, [*silent, advance], strict=True)]
    ).T
    unbounded = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
    if len(unbounded):
        names = [tensors[computed[number]].name.decode() for number in unbounded[:3]]
        raise ValueError(
            f"An integer file needs finite activations; on `data` these tensors are not finite: "
            f"{', '.join(names)}. Check the model's weights."
        )
    for index, least, greatest in zip(computed, low, high, strict=True):
        stated = tensors[index].quantization
        if stated is not None and stated.min is not None and stated.max is not None:
            stated.min, stated.max = np.array([least], "float32"), np.array([greatest], "float32")
    return packed(model)


def _is_computed_float(tensor: Any, buffers: Sequence[Any]) -> bool:
    return tensor.type == schema_module().TensorType.FLOAT32 and not holds_data(buffers[tensor.buffer])


def _parts(indexes: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Splits tensors of these sizes into groups that fit into memory; most networks need one."""
    parts: list[list[int]] = []
    left = 0
    for index, size in zip(indexes, sizes, strict=True):
        if not parts or size > left:
            parts.append([])
            left = MOST_BYTES
        parts[-1].append(index)
        left -= size
    return parts


def _ranges(model: Any, indexes: Sequence[int], batches: Sequence[np.ndarray], advance: Advance) -> np.ndarray:
    """Returns minima and maxima, shape (tensors, 2)."""
    ranges: np.ndarray = np.full((len(indexes), 2), (np.inf, -np.inf), np.float32)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        path = pathlib.Path(folder, "calibration.tflite")
        path.write_bytes(packed(_with_outputs(model, indexes)))
        runner = TFLiteRunner(path, threads=os.cpu_count() or 1)
        values = [runner.interpreter.tensor(index) for index in indexes]
        for batch in batches:
            runner.run_one(batch)
            low, high = np.array(list(pool.map(_extremes, values)), np.float32).T
            ranges = np.stack([np.minimum(ranges[:, 0], low), np.maximum(ranges[:, 1], high)], axis=1)
            advance()
    return ranges


def _extremes(value: Callable[[], np.ndarray]) -> tuple[float, float]:
    array = value()
    return array.min(), array.max()


def _with_outputs(model: Any, indexes: Sequence[int]) -> Any:
    """Returns the model with these tensors as its outputs: no others survive a run."""
    graph, whole = copy.copy(model.subgraphs[0]), copy.copy(model)
    graph.outputs = np.array([index for index in indexes if index not in graph.inputs], "int32")
    whole.subgraphs = [graph, *model.subgraphs[1:]]
    return whole
