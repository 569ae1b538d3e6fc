"""The signature of a SavedModel that takes the bytes of image files."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras

from se_keras.export.image_bytes import Photos, prepared_images
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import preprocessing_of
from se_keras.scores import Scores


def photos_of(model: keras.Model, scores: Scores, preprocessing: Preprocessing | None) -> Photos | None:
    """Returns the conversion of photos to inputs of a model.

    Args:
        model: The model.
        scores: The kind of its output.
        preprocessing: The preprocessing of a model that does not contain its own.

    Returns:
        The conversion; None if the model is not a classifier of RGB images, with nothing else as input or output.

    Raises:
        ValueError: `preprocessing` is given for a model that contains its own.
    """
    own = _own_record(model)
    if own is not None and preprocessing is not None:
        raise ValueError(
            f"`preprocessing` is for models without their own; {model.name!r} contains its preprocessing. Omit it."
        )
    record = own or preprocessing
    shape = tuple(model.inputs[0].shape[1:])
    is_rgb = len(shape) == 3 and shape[-1] == 3 and keras.config.image_data_format() == "channels_last"
    if not is_rgb or scores.kind == "output" or len(model.inputs) > 1 or len(model.outputs) > 1:
        return None
    if None not in shape:
        size = shape[:2]
    elif record is not None:
        size = record.height_width
    else:
        return None
    record = record and dataclasses.replace(record, size=size)
    return Photos(record, size, is_normalized=preprocessing is not None, dtype=model.inputs[0].dtype)


def _own_record(model: keras.Model) -> Preprocessing | None:
    """Returns the preprocessing of the model, or of a nested model that directly follows its input."""
    first = next((layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)), None)
    if isinstance(first, keras.Model):
        return _own_record(first)
    try:
        return preprocessing_of(model)
    except ValueError:
        return None


def bytes_signature(scores: Scores, predict: Any, photos: Photos, class_names: tuple[str, ...] | None, top: int) -> Any:
    """Returns the function from the bytes of files to predictions.

    Args:
        scores: The kind of the model's output.
        predict: A function from images to a dictionary with the model's "output".
        photos: The conversion of the bytes of a file to an image.
        class_names: Class names in the order of the outputs; None for indices.
        top: Number of class names to return.

    Returns:
        A `tf.function` with an input signature.
    """
    import tensorflow as tf

    def serve_bytes(image_bytes: Any) -> dict[str, Any]:
        images, status = prepared_images(image_bytes, photos)
        count = tf.shape(status)[0]
        # TensorFlow's convolutions return a wrong number of channels for a batch without images.
        blank = tf.zeros((1, *photos.size, 3), images.dtype)
        images = tf.cond(tf.equal(count, 0), lambda: tf.ensure_shape(blank, images.shape), lambda: images)
        probabilities = scores.probabilities(predict(images)["output"])[:count]
        best, indices = tf.math.top_k(probabilities, min(top, scores.classes))
        shown = tf.constant(class_names or [str(index) for index in range(scores.classes)])
        is_whole = tf.equal(status, "")[:, None]
        return {
            "probabilities": tf.where(is_whole, probabilities, math.nan),
            "labels": tf.where(is_whole, tf.gather(shown, indices), ""),
            "scores": tf.where(is_whole, best, math.nan),
            "status": status,
        }

    spec = tf.TensorSpec((None,), tf.string, name="image_bytes")
    return tf.function(serve_bytes, input_signature=[spec], autograph=False)
