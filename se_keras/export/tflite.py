"""TFLite: for phones, browsers and small computers."""

from __future__ import annotations

import os
import pathlib
import tempfile

import keras

from se_keras.export.files import native_output_held, replacing
from se_keras.export.runtime import require_tensorflow
from se_keras.export.saved_model import write_archive


def tflite(model: keras.Model, path: str | os.PathLike, *, overwrite: bool = False) -> pathlib.Path:
    """Writes a model as a `.tflite` file for one image at a time, float32, built-in operations only.

    Args:
        model: A functional or sequential model with one input of fixed height and width.
        path: The file to write.
        overwrite: Whether an existing file is replaced.

    Returns:
        The file.

    Raises:
        FileExistsError: The file exists and `overwrite` is False.
        RuntimeError: Keras does not run on TensorFlow.
        ValueError: The model leaves its input size open.
    """
    tf = require_tensorflow("A .tflite file")
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise ValueError(
            f"A .tflite file has a fixed input size; the input of {model.name!r} is {shape}. Build the model with an "
            "`input_shape` that states height and width, and load the weights into it."
        )
    with replacing(path, overwrite=overwrite) as target, native_output_held(), tempfile.TemporaryDirectory() as folder:
        write_archive(model, folder, batch=1)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        target.write_bytes(converter.convert())
    return pathlib.Path(path)
