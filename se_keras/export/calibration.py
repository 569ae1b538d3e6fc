"""Images for calibrating a quantized file, and the ranges of its tensors on them.

TensorFlow's converter can find these ranges itself, with plain kernels on one thread. That takes longer than the rest
of an export, and reads some tensors after others have overwritten them. Here the runtime's fast kernels find them.
"""

from __future__ import annotations

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

from se_keras.export import flatbuffer
from se_keras.export.images import check_range, left_out, preparation_of, real_images, takes_pixels
from se_keras.export.runtime import TFLiteRunner

FLOAT32 = 0  # of a tensor's type
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


def calibrate(model: keras.Model, data: Any, *, least: int = LEAST_IMAGES) -> Calibration:
    """Reads and checks the images for calibration.

    Args:
        model: The model, with one input of fixed size. It determines how photos are resized and their range.
        data: A folder, an array, or a `tf.data` pipeline.
        least: Required number of different images.

    Returns:
        At most 200 images, and their range. Files that cannot be read are skipped and named in a warning.

    Raises:
        ValueError: Fewer than `least` different images, values that are not finite, or images
            in the range 0 to 1 for a model that expects 0 to 255.
    """
    shape = tuple(model.inputs[0].shape[1:])
    given = real_images(data, None, shape, record=preparation_of(model, shape[:2]), most=MOST_IMAGES)
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
    if takes_pixels(model):
        check_range(found)
        # Makes the scale of an integer input exactly 1: MediaPipe feeds pixels regardless of the file's scale.
        found[0, 0, 0], found[0, 0, 1] = 0.0, 255.0
    return Calibration(found, low, high)


def calibrated(converter: Any, batches: Sequence[np.ndarray]) -> bytes:
    """Converts to a float `.tflite` file with the range of each tensor, ready for `mlir_quantize`.

    The converter's own pass over the first batch allocates the ranges. TensorFlow's `QuantizationDebugger` also stops
    it there and quantizes afterwards; neither step has a public name.

    Args:
        converter: A `tf.lite.TFLiteConverter` set up to quantize to 8 bits.
        batches: Arrays of the input's shape, at least one.

    Returns:
        The content of the file.

    Raises:
        ValueError: As in `with_ranges`.
    """
    converter.representative_dataset = lambda: iter([[batches[0]]])
    converter._experimental_calibrate_only = True
    return with_ranges(converter.convert(), batches)


def with_ranges(content: bytes, batches: Sequence[np.ndarray]) -> bytes:
    """Records the minimum and maximum of each tensor over all batches in a float `.tflite` file.

    Args:
        content: The content of a file that the converter calibrated with any images, including the range of each
            tensor.
        batches: Arrays of the input's shape, at least one.

    Returns:
        The content with the ranges replaced, ready for quantization.

    Raises:
        ValueError: The values of a tensor are not finite.
    """
    tensors = _computed_tensors(content)
    low, high = np.concatenate([_ranges(content, part, batches) for part in _parts(tensors)]).T
    unbounded = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
    if len(unbounded):
        names = [tensors[number]["name"] for number in unbounded[:3]]
        raise ValueError(
            f"An integer file needs finite activations; on `representative_data` these tensors are not finite: "
            f"{', '.join(names)}. Check the model's weights."
        )
    edited = bytearray(content)
    for tensor, least, greatest in zip(tensors, low, high, strict=True):
        for bound, value in zip(tensor["bounds"], (least, greatest), strict=False):
            edited[bound] = value.astype("<f4").tobytes()
    return bytes(edited)


def _parts(tensors: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Splits the tensors into groups that fit into memory; most networks need one."""
    parts: list[list[dict[str, Any]]] = []
    left = 0
    for tensor in tensors:
        if not parts or tensor["bytes"] > left:
            parts.append([])
            left = MOST_BYTES
        parts[-1].append(tensor)
        left -= tensor["bytes"]
    return parts


def _ranges(content: bytes, tensors: Sequence[dict[str, Any]], batches: Sequence[np.ndarray]) -> np.ndarray:
    """Returns minima and maxima, shape (tensors, 2)."""
    ranges: np.ndarray = np.full((len(tensors), 2), (np.inf, -np.inf), np.float32)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        path = pathlib.Path(folder, "calibration.tflite")
        path.write_bytes(_giving_out(content, [tensor["index"] for tensor in tensors]))
        runner = TFLiteRunner(path, threads=os.cpu_count() or 1)
        values = [runner.interpreter.tensor(tensor["index"]) for tensor in tensors]
        for batch in batches:
            runner.run_one(batch)
            low, high = np.array(list(pool.map(_extremes, values)), np.float32).T
            ranges = np.stack([np.minimum(ranges[:, 0], low), np.maximum(ranges[:, 1], high)], axis=1)
    return ranges


def _extremes(value: Callable[[], np.ndarray]) -> tuple[float, float]:
    array = value()
    return array.min(), array.max()


def _computed_tensors(content: bytes) -> list[dict[str, Any]]:
    """Returns the float tensors that are not constants: index, name, size, and the place of their range if stated."""
    buffers = flatbuffer.read_root(content, "Model")["buffers"]
    found = []
    for index, position in enumerate(_graph(content)["tensors"]):
        tensor = {"type": FLOAT32, "buffer": 0, **flatbuffer.read(content, position, "Tensor")}
        if tensor["type"] == FLOAT32 and not _holds_data(content, buffers[tensor["buffer"]]):
            size = 4 * int(np.prod(tensor.get("shape", ()), dtype=np.int64))
            found.append({"index": index, "name": tensor["name"], "bytes": size, "bounds": _bounds(content, tensor)})
    return found


def _holds_data(content: bytes, position: int) -> bool:
    buffer = flatbuffer.read(content, position, "Buffer")
    if "data" not in buffer:
        return "offset" in buffer
    data = flatbuffer.span(content, buffer["data"])
    return data.stop > data.start


def _bounds(content: bytes, tensor: dict[str, Any]) -> list[slice]:
    if "quantization" not in tensor:
        return []
    stated = flatbuffer.read(content, tensor["quantization"], "QuantizationParameters")
    return [flatbuffer.span(content, stated[bound], "float") for bound in ("min", "max") if bound in stated]


def _giving_out(content: bytes, indexes: Sequence[int]) -> bytes:
    """Returns the model with these tensors as its outputs: no others survive a run."""
    inner = [index for index in indexes if index not in _graph(content)["inputs"]]
    position = flatbuffer.read_root(content, "Model")["subgraphs"][0]
    return flatbuffer.with_vector(content, position, "SubGraph", "outputs", inner)


def _graph(content: bytes) -> dict[str, Any]:
    return flatbuffer.read(content, flatbuffer.read_root(content, "Model")["subgraphs"][0], "SubGraph")
