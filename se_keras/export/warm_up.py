"""Warm-up requests, which TensorFlow Serving runs when it loads a model so the first user does not wait."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

WARM_UP_FILE = pathlib.Path("assets.extra", "tf_serving_warmup_requests")


def write_warm_up(folder: str | os.PathLike, model_name: str, requests: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes one request for each signature into a SavedModel.

    Args:
        folder: The SavedModel.
        model_name: Model name in the requests.
        requests: For each signature, its inputs by name, as arrays or tensors.
    """
    import tensorflow as tf

    file = pathlib.Path(folder) / WARM_UP_FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(os.fspath(file)) as writer:
        for signature, inputs in requests.items():
            tensors = {name: tf.make_tensor_proto(value).SerializeToString() for name, value in inputs.items()}
            writer.write(prediction_log(model_name, signature, tensors))


def prediction_log(model_name: str, signature: str, inputs: Mapping[str, bytes]) -> bytes:
    """Serializes a `tensorflow.serving.PredictionLog` of one request.

    Written by hand, because only the package tensorflow-serving-api has the message types.

    Reference: tensorflow/serving, tensorflow_serving/apis: prediction_log.proto (PredictionLog.predict_log
    = 6, PredictLog.request = 1), predict.proto (PredictRequest.model_spec = 1, inputs = 2), model.proto
    (ModelSpec.name = 1, signature_name = 3).

    Args:
        model_name: Name of the model.
        signature: Name of the signature.
        inputs: A serialized `TensorProto` for each input.

    Returns:
        The bytes of the message.
    """
    model_spec = _field(1, model_name.encode()) + _field(3, signature.encode())
    entries = (_field(2, _field(1, name.encode()) + _field(2, tensor)) for name, tensor in inputs.items())
    request = _field(1, model_spec) + b"".join(entries)
    return _field(6, _field(1, request))


def _field(number: int, payload: bytes) -> bytes:
    length_delimited = 2
    return _varint(number << 3 | length_delimited) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
