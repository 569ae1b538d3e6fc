"""The inference form of a model, compared with the model before anything is written."""

from __future__ import annotations

import keras
import numpy as np

from se_keras.export.images import random_images
from se_keras.surgery import deploy

OPEN_SIZE = 128  # tried where a model takes any size: more than any network's least
LARGEST_DIFFERENCE = 1e-3  # over the greatest answer; rounding through 150 layers stays far below
ROUNDING = 2.0**-20  # of the input, relative, to see what it does to a model's answers
SHAKEN_DIFFERENCE = 50  # times what that changes, where this is more


def inference_form(model: keras.Model) -> keras.Model:
    """`surgery.deploy`, and a comparison of both forms on two random images.

    They may differ by 1e-3 of the greatest answer, and where already rounding the input changes the model's answers
    much, as in some networks that were not trained, by 50 times that change.

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
    answers = _answers(model, images)
    difference = _difference(_answers(deployed, images), answers)
    if difference <= LARGEST_DIFFERENCE:
        return deployed
    # A network of random weights can give logits of tens of thousands, whose softmax shows the last bit of rounding.
    signs = np.random.default_rng(0).choice([-ROUNDING, ROUNDING], images.shape)
    shaken = _difference(_answers(model, (images * (1 + signs)).astype(images.dtype)), answers)
    if not difference <= SHAKEN_DIFFERENCE * shaken:
        raise ValueError(
            f"The inference form of {model.name!r} answers differently from the model, by {difference:.2g} of its "
            "greatest answer, so it is not written. Please report the model; deploy=False exports it as it is, "
            "where the format has that option."
        )
    return deployed


def _answers(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(answer) for answer in keras.tree.flatten(model(images, training=False))]


def _difference(answers: list[np.ndarray], references: list[np.ndarray]) -> float:
    """The greatest over the answers that are finite in the reference; NaN where one of ours is."""
    pairs = zip(answers, references, strict=True)
    return float(np.max([0.0, *(relative_difference(a, b) for a, b in pairs if np.isfinite(b).all())]))


def relative_difference(answer: np.ndarray, reference: np.ndarray) -> float:
    """The greatest difference of two arrays over the greatest absolute value of the reference."""
    return float(np.abs(answer - reference).max() / max(np.abs(reference).max(), np.finfo("float32").tiny))


def _computes_in_half(model: keras.Model) -> bool:
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in model.layers)
