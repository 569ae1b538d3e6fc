"""The images that a quantised file is calibrated with, and the values that its tensors take on them.

TensorFlow's converter finds these values itself, with plain kernels on one thread, which takes longer than all the rest
of an export, and reads some tensors when others have been written over them. Here the runtime's fast kernels find them.
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
MOST_BYTES = 256 * 2**20  # of tensors that are kept at once to find their ranges


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The images that a file was calibrated with.

    Args:
        images: Float32 array of shape (n, height, width, channels).
        low: The smallest value in them.
        high: The largest.
    """

    images: np.ndarray
    low: float
    high: float


def calibrate(model: keras.Model, data: Any, *, least: int = LEAST_IMAGES) -> Calibration:
    """Reads and checks the images for calibration.

    Args:
        model: The model, with one input of fixed size, which says how photos are resized and what range it takes.
        data: A folder, an array or a `tf.data` pipeline.
        least: How many different images there must be.

    Returns:
        At most 200 images, and their range. Files that cannot be read are left out, and named in a warning.

    Raises:
        ValueError: Fewer than `least` different images, values that are not finite, or images
            of 0 to 1 for a model that takes 0 to 255.
    """
    shape = tuple(model.inputs[0].shape[1:])
    given = real_images(data, None, shape, record=preparation_of(model, shape[:2]), most=MOST_IMAGES)
    if given.broken:
        warnings.warn(left_out(given.broken), stacklevel=3)
    found = given.images
    different = len({image.tobytes() for image in found})
    if different < least:
        raise ValueError(
            f"Calibration needs at least {least} different images, so that no activation is cut off; received "
            f"{different} different ones of {len(found)}. Give more photos of the kind the model will see."
        )
    if not np.isfinite(found).all():
        raise ValueError("The images for calibration must be finite; received NaN or infinite values.")
    low, high = float(found.min()), float(found.max())
    if takes_pixels(model):
        check_range(found)
        # So that the scale of an integer input is exactly 1: MediaPipe feeds pixels whatever the file says.
        found[0, 0, 0], found[0, 0, 1] = 0.0, 255.0
    return Calibration(found, low, high)


def calibrated(converter: Any, batches: Sequence[np.ndarray]) -> bytes:
    """Converts to a float `.tflite` file with the range of each tensor, which `mlir_quantize` turns into integers.

    The converter's own pass over the first batch makes room for the ranges. To stop it there, and to quantise
    afterwards, is what TensorFlow's `QuantizationDebugger` does; neither has a public name.

    Args:
        converter: A `tf.lite.TFLiteConverter` that is to quantise to 8 bits.
        batches: Arrays of the input's shape, at least one.

    Returns:
        The file's content.

    Raises:
        ValueError: As of `with_ranges`.
    """
    converter.representative_dataset = lambda: iter([[batches[0]]])
    converter._experimental_calibrate_only = True
    return with_ranges(converter.convert(), batches)


def with_ranges(content: bytes, batches: Sequence[np.ndarray]) -> bytes:
    """States in a float `.tflite` file the least and the greatest value of each tensor over all batches.

    Args:
        content: The file's content as the converter gives it out after calibration with whatever images: with the
            range of each tensor.
        batches: Arrays of the input's shape, at least one.

    Returns:
        The content with the ranges replaced, ready to be quantised.

    Raises:
        ValueError: A tensor's values are not finite.
    """
    tensors = _computed_tensors(content)
    low, high = np.concatenate([_ranges(content, part, batches) for part in _parts(tensors)]).T
    unbounded = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
    if len(unbounded):
        names = [tensors[number]["name"] for number in unbounded[:3]]
        raise ValueError(
            f"A file of integers needs finite values between its layers; on representative_data these are not: "
            f"{', '.join(names)}. Check the model's weights."
        )
    edited = bytearray(content)
    for tensor, least, greatest in zip(tensors, low, high, strict=True):
        for bound, value in zip(tensor["bounds"], (least, greatest), strict=False):
            edited[bound] = value.astype("<f4").tobytes()
    return bytes(edited)


def _parts(tensors: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The tensors in groups that fit into memory together; most networks' all do."""
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
    """Least and greatest values, shape (tensors, 2)."""
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
    """The float tensors that are no constants: index, name, size, and where their range is, if stated."""
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
    """The same model, with these tensors as its outputs: of others nothing is left after a run."""
    inner = [index for index in indexes if index not in _graph(content)["inputs"]]
    position = flatbuffer.read_root(content, "Model")["subgraphs"][0]
    return flatbuffer.with_vector(content, position, "SubGraph", "outputs", inner)


def _graph(content: bytes) -> dict[str, Any]:
    return flatbuffer.read(content, flatbuffer.read_root(content, "Model")["subgraphs"][0], "SubGraph")
