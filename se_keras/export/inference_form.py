"""The inference form of a model, compared with the model before anything is written."""

from __future__ import annotations

import keras
import numpy as np

from se_keras.export.images import random_images
from se_keras.surgery import deploy

OPEN_SIZE = 128  # tried where a model takes any size: more than any network's least
LARGEST_DIFFERENCE = 1e-3  # over the greatest answer; rounding through 150 layers stays far below


def inference_form(model: keras.Model) -> keras.Model:
    """`surgery.deploy`, and a comparison of both forms on two random images.

    Args:
        model: A functional or sequential model with one input.

    Returns:
        The deployed model.

    Raises:
        ValueError: The two forms answer differently: an error of this package. Also as `deploy`.
    """
    deployed = deploy(model).model
    shape = [size if size is not None else OPEN_SIZE for size in model.inputs[0].shape[1:]]
    if len(shape) != 3 or _computes_in_half(model):
        return deployed
    images = random_images(shape, 2).images
    answers = [keras.tree.flatten(form(images, training=False)) for form in (model, deployed)]
    for ours, theirs in zip(*answers, strict=True):
        difference = relative_difference(keras.ops.convert_to_numpy(theirs), keras.ops.convert_to_numpy(ours))
        if not difference <= LARGEST_DIFFERENCE and np.isfinite(keras.ops.convert_to_numpy(ours)).all():
            raise ValueError(
                f"The inference form of {model.name!r} answers differently from the model, by {difference:.2g} of its "
                "greatest answer, so it is not written. Please report the model; deploy=False exports it as it is, "
                "where the format has that option."
            )
    return deployed


def relative_difference(answer: np.ndarray, reference: np.ndarray) -> float:
    """The greatest difference of two arrays over the greatest absolute value of the reference."""
    return float(np.abs(answer - reference).max() / max(np.abs(reference).max(), np.finfo("float32").tiny))


def _computes_in_half(model: keras.Model) -> bool:
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in model.layers)
