"""Reading and writing of `.tflite` files, with the schema classes of the runtime."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from se_keras.export.tensorflow_internals import schema_module

IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # bytes, of weights, as the schema requires
ROOM = 2**20  # bytes for everything but the weights; the builder allocates more if needed


def is_tflite(head: bytes) -> bool:
    """Returns whether bytes are the beginning of a `.tflite` file."""
    return head[4:8] == IDENTIFIER


def read_model(content: bytes, *, source: str | os.PathLike = "") -> Any:
    """Reads a `.tflite` file.

    Args:
        content: The content of the file, possibly followed by other bytes.
        source: The file, for messages.

    Returns:
        A `ModelT` of the runtime's schema, whose vectors of numbers are views into `content`.

    Raises:
        ImportError: Neither `ai_edge_litert` nor TensorFlow is installed.
        ValueError: The content is not a TFLite model, or is damaged.
    """
    if not is_tflite(content):
        raise ValueError(
            f"A TFLite model must have {IDENTIFIER!r} in bytes 4 to 7; received {len(content)} bytes with "
            f"{bytes(content[4:8])!r} there. Pass the content of a .tflite file."
        )
    with damage_reported(source):
        return schema_module().ModelT.InitFromPackedBuf(content, 0)


@contextlib.contextmanager
def damage_reported(source: str | os.PathLike = "") -> Iterator[None]:
    """Converts errors on the content of a `.tflite` file, named in the message as in `read_model`, to a ValueError."""
    try:
        yield
    except (LookupError, OverflowError, TypeError, ValueError, AttributeError, struct.error) as error:
        name = f" {os.fspath(source)!r}" if source else ""
        raise ValueError(
            f"The TFLite model{name} is damaged or cut short ({error}). Export or download it again."
        ) from error


def holds_data(buffer: Any) -> bool:
    """Returns whether a file holds the values of a buffer, inside its flatbuffer or after it."""
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.size > 0


def in_one_piece(content: bytes) -> bytes:
    """Returns a `.tflite` file with all weights inside its flatbuffer, where metadata can be added to it.

    Args:
        content: The content of a file of less than 2 GB, which may have weights after its flatbuffer.

    Returns:
        The content of a file that computes the same.
    """
    model = read_model(content)
    outside = [buffer for buffer in model.buffers if buffer.offset > 1]
    for buffer in outside:
        buffer.data = np.frombuffer(content, "uint8", buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return packed(model) if outside else content


def packed(model: Any) -> bytes:
    """Writes a model as a `.tflite` file.

    Args:
        model: A `ModelT`.

    Returns:
        The content of the file.

    Raises:
        ValueError: The model stores weights after its flatbuffer.
    """
    import flatbuffers

    class Builder(flatbuffers.Builder):
        """A builder that aligns weights as the schema requires, which generated Python code does not."""

        def CreateNumpyVector(self, x: np.ndarray) -> int:
            self.Prep(ALIGNMENT, x.nbytes)
            return super().CreateNumpyVector(x)

    if any(buffer.offset > 1 for buffer in model.buffers):
        raise ValueError(
            "The model stores weights after its flatbuffer, as models above 2 GB do, and a change would lose them. "
            "Export it without class names."
        )
    weights = sum(buffer.data.nbytes for buffer in model.buffers if buffer.data is not None)
    builder = Builder(weights + ROOM)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def quantized(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Converts real values to the values that a TFLite tensor stores.

    Args:
        values: Real values, of any dtype.
        tensor: The tensor's details from the interpreter.

    Returns:
        Array of the tensor's dtype and the same shape, clipped to its range.
    """
    scale, zero_point = tensor["quantization"]
    dtype = np.dtype(tensor["dtype"])
    if not scale:
        return np.asarray(values).astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(np.asarray(values, "float32") / scale) + zero_point, limits.min, limits.max).astype(dtype)


def dequantized(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Converts the values that a TFLite tensor stores to real values.

    Args:
        values: Array of the tensor's dtype.
        tensor: The tensor's details from the interpreter.

    Returns:
        Float32 array of the same shape.
    """
    scale, zero_point = tensor["quantization"]
    values = np.asarray(values, "float32")
    return (values - zero_point) * np.float32(scale) if scale else values
