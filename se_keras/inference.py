"""Classification of images: from image files to named predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from se_keras.batch_prediction import predict_batch
from se_keras.class_names import class_names_for, decode_predictions
from se_keras.errors import check_count
from se_keras.preprocessing import image_sequence, preprocess
from se_keras.progress import tracked
from se_keras.scores import Scores
from se_keras.surgery.outputs import scores_of


def classify(
    model: keras.Model,
    images: Any,
    *,
    class_names: Sequence[str] | None = None,
    top: int = 5,
    batch_size: int = 32,
    verbose: str | int = "auto",
) -> list[list[tuple[str, str, float]]]:
    """Returns the names of the most probable classes of images.

    Args:
        model: A model that includes its preprocessing. Logits get a softmax (one logit: a sigmoid);
            one output is the probability of the second of two classes; several sigmoids stay
            independent.
        images: Paths, PIL images, or RGB arrays (0 to 255), of any sizes; one or several, as in `preprocess`.
        class_names: Class names in the order of the outputs; two for one output. Default:
            the model's own, or ImageNet's.
        top: Number of classes per image, at least 1.
        batch_size: Number of images per batch, at least 1.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        For each image, triples (WNID or index, name, probability), most probable first.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: An image cannot be read (the message names it), `images` are something else, the class names do not
            fit the model, or the outputs are not probabilities (the message gives the number of the image).
    """
    images = image_sequence(images)
    batch_size = min(check_count("batch_size", batch_size), max(len(images), 1))
    scores = scores_of(model)
    class_names = class_names_for(model, class_names, scores.classes)
    answers: list[np.ndarray] = [np.zeros((0, scores.classes), "float32")]
    for start in tracked(range(0, len(images), batch_size), "Classifying", verbose=verbose):
        batch = preprocess(images[start : start + batch_size], model)
        answers.append(probabilities_of(model, scores, batch, batch_size=batch_size))
    return decode_predictions(np.concatenate(answers), top=top, class_names=class_names)


def probabilities_of(model: keras.Model, scores: Scores, images: np.ndarray, *, batch_size: int) -> np.ndarray:
    """Computes the probability of each class for one batch of images.

    Args:
        model: The model.
        scores: The kind of its output.
        images: The images, in the form of the model's input; at most `batch_size`.
        batch_size: Number of images in a full batch.

    Returns:
        Array of shape (images, classes).
    """
    # The shape is always the same: for a new one, the backend would compile the model again.
    padding = [(0, batch_size - len(images)), *[(0, 0)] * (images.ndim - 1)]
    outputs = predict_batch(model, np.pad(images, padding))
    return keras.ops.convert_to_numpy(scores.probabilities(outputs))[: len(images)]
