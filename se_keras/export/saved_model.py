"""SavedModel: for servers and TensorFlow programs."""

from __future__ import annotations

import os
import pathlib

import keras

from se_keras.export.files import native_output_held, replacing
from se_keras.export.runtime import require_tensorflow


def saved_model(model: keras.Model, path: str | os.PathLike, *, overwrite: bool = False) -> pathlib.Path:
    """Writes a model as a SavedModel with a dynamic batch.

    Args:
        model: A functional or sequential model with one input.
        path: The folder to write.
        overwrite: Whether an existing folder is replaced.

    Returns:
        The folder. Its signature "serving_default" takes the images as float32 and returns the
        model's output; no custom code is needed to run it.

    Raises:
        FileExistsError: The folder exists and `overwrite` is False.
        RuntimeError: Keras does not run on TensorFlow.
    """
    require_tensorflow("A SavedModel")
    with replacing(path, overwrite=overwrite) as target, native_output_held():
        write_archive(model, target, batch=None)
    return pathlib.Path(path)


def write_archive(model: keras.Model, path: str | os.PathLike, *, batch: int | None) -> None:
    """Writes the inference function of a model as a SavedModel folder.

    Args:
        model: A functional or sequential model with one input.
        path: The folder; nothing may exist there.
        batch: A fixed batch size, or None for any.
    """
    import tensorflow as tf

    images = model.inputs[0]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((batch, *images.shape[1:]), images.dtype, name="images")],
    )
    archive.write_out(os.fspath(path), verbose=False)
