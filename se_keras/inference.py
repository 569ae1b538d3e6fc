"""From image files to named predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.preprocessing import decode_predictions, preprocess


def classify(
    model: keras.Model,
    images: Sequence[Any],
    *,
    labels: Sequence[str] | None = None,
    top: int = 5,
    batch_size: int = 32,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[list[tuple[str, str, float]]]:
    """Names the most probable classes of images.

    Args:
        model: A model with its preprocessing inside that ends in probabilities.
        images: Paths, PIL images or RGB arrays (0 to 255) of any sizes.
        labels: Names of the classes in the order of the outputs. Default: ImageNet's.
        top: How many classes an image, at least 1.
        batch_size: Images at a time, at least 1.
        progress: Wraps the iteration over batches, e.g. to show a bar.

    Returns:
        For each image the triples (WNID or index, name, probability), most probable first.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: An image that cannot be read (named), or labels that do not fit the model.
    """
    decoded = []
    for start in progress(range(0, len(images), batch_size)):
        batch = preprocess(images[start : start + batch_size], model)
        probabilities = np.asarray(model.predict_on_batch(batch))
        decoded += decode_predictions(probabilities, top=top, labels=labels)
    return decoded
