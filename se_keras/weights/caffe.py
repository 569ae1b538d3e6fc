"""A reader of `.caffemodel` files, built on the few messages of Caffe's protobuf schema that contain weights."""

from __future__ import annotations

import functools
import math
import os
from typing import Any

import numpy as np

from se_keras.errors import missing_package
from se_keras.file_kinds import damaged

# Field numbers of BVLC/caffe, src/caffe/proto/caffe.proto.
_MESSAGES = {
    "BlobShape": (("dim", 1, "int64", "repeated"),),
    "BlobProto": (
        ("num", 1, "int32", "optional"),
        ("channels", 2, "int32", "optional"),
        ("height", 3, "int32", "optional"),
        ("width", 4, "int32", "optional"),
        ("data", 5, "float", "repeated"),
        ("shape", 7, "BlobShape", "optional"),
        ("double_data", 8, "double", "repeated"),
    ),
    "LayerParameter": (
        ("name", 1, "string", "optional"),
        ("type", 2, "string", "optional"),
        ("blobs", 7, "BlobProto", "repeated"),
    ),
    "NetParameter": (
        ("name", 1, "string", "optional"),
        ("layer", 100, "LayerParameter", "repeated"),
    ),
}
_LARGEST = 2**31 - 1  # protobuf's own limit for a message


def read_caffemodel(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights of a Caffe network.

    Args:
        path: A `.caffemodel` file.

    Returns:
        Float arrays by "layer[number of the blob]", such as "conv1/7x7_s2[0]".

    Raises:
        ImportError: `protobuf` is not installed.
        ValueError: The file is not a Caffe network, or a blob's size differs from its stated shape.
    """
    name = os.fspath(path)
    if os.path.getsize(path) > _LARGEST:
        raise ValueError(f"A .caffemodel file must be at most 2 GiB; {name!r} has {os.path.getsize(path)} bytes.")
    network = net_parameter_class()()
    with open(path, "rb") as stream:
        content = stream.read()
    try:
        network.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError lives in a module that may be missing
        raise damaged(path, "Caffe network", error) from error
    blobs = {
        f"{layer.name}[{number}]": _array(blob, f"{layer.name}[{number}] in {name!r}")
        for layer in network.layer
        for number, blob in enumerate(layer.blobs)
    }
    if not blobs:
        raise ValueError(f"{name!r} contains no weights in Caffe's current format (`layer` with `blobs`).")
    return blobs


def _array(blob: Any, where: str) -> np.ndarray:
    data = np.asarray(blob.data, "float32") if len(blob.data) else np.asarray(blob.double_data, "float64")
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    if math.prod(shape) != data.size or min(shape, default=1) < 0:
        raise ValueError(f"The blob {where} states the shape {shape}, but contains {data.size} numbers.")
    return data.reshape(shape)


@functools.cache
def net_parameter_class() -> Any:
    """Returns the protobuf class of a Caffe network, built from the table above."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise missing_package("google.protobuf", "weights", "Reading a .caffemodel file") from error
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="se_keras/caffe.proto", package="se_keras.caffe", syntax="proto2")
    for message_name, rows in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, label in rows:
            added = message.field.add(name=name, number=number, label=getattr(field, f"LABEL_{label.upper()}"))
            if kind in _MESSAGES:
                added.type, added.type_name = field.TYPE_MESSAGE, f".se_keras.caffe.{kind}"
            else:
                added.type = getattr(field, f"TYPE_{kind.upper()}")
            if name in ("data", "double_data", "dim"):
                added.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("se_keras.caffe.NetParameter"))
