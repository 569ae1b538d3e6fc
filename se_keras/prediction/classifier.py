"""Classification of a stream of image files; for a file that cannot be read, the reason replaces the predictions."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np

from se_keras.class_names import decode_predictions
from se_keras.images.reading import is_system_failure
from se_keras.images.record import Preprocessing
from se_keras.inference import probabilities_of
from se_keras.prediction.job import Row
from se_keras.preprocessing import preprocess, preprocessing_of
from se_keras.surgery.outputs import scores_of

BATCHES_AHEAD = 2  # decoded while the model computes; this limits the memory


@dataclasses.dataclass(frozen=True)
class Question:
    """The settings of a classification, without the model.

    Args:
        folder: Folder of the images.
        class_names: Names of the classes. None uses ImageNet's.
        top: Number of classes per image.
        batch_size: Number of images per batch.
    """

    folder: str
    class_names: tuple[str, ...] | None
    top: int
    batch_size: int


def classified(model: keras.Model, question: Question, parts: Iterable[Sequence[str]]) -> Iterator[Row]:
    """Classifies files while the next ones are being decoded.

    Args:
        model: A model with its preprocessing inside.
        question: The settings.
        parts: Names relative to the folder of the settings. No batch has files of two parts, so the results do not
            depend on where the work was interrupted.

    Yields:
        For each file, in order, {"file": name, "predictions": [[id, label, probability], ...]}
        or {"file": name, "error": reason}.

    Raises:
        FileNotFoundError: The folder no longer exists.
    """
    record = preprocessing_of(model)
    answer = functools.partial(probabilities_of, model, scores_of(model), batch_size=question.batch_size)
    batches = (batch for part in parts for batch in _batches(part, question.batch_size))
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        waiting: collections.deque[list[tuple[str, concurrent.futures.Future]]] = collections.deque()
        for batch in itertools.chain(batches, [None] * BATCHES_AHEAD):
            if batch is not None:
                waiting.append([(name, pool.submit(_decoded, question.folder, name, record)) for name in batch])
            if waiting and (batch is None or len(waiting) > BATCHES_AHEAD):
                ready = [(name, image.result()) for name, image in waiting.popleft()]
                yield from _answers(ready, answer, question)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def as_lines(rows: Iterable[Row]) -> str:
    """Returns the rows of a part as text, with one JSON object per line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def _batches(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))


def _decoded(folder: str, name: str, record: Preprocessing) -> np.ndarray | str:
    try:
        return preprocess(os.path.join(folder, name), record)
    except Exception as error:  # one damaged file must not stop the classification of the others
        if is_system_failure(error):
            raise
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"The folder {folder!r} cannot be found on {platform.node()}. The images must have the same path on "
                "every machine that takes part."
            ) from error
        return f"{error}" or type(error).__name__


def _answers(
    batch: Sequence[tuple[str, np.ndarray | str]], answer: Callable[[np.ndarray], np.ndarray], question: Question
) -> Iterator[Row]:
    images = [image for _, image in batch if not isinstance(image, str)]
    probabilities = answer(np.concatenate(images)) if images else np.zeros((0, 1), "float32")
    is_finite = np.isfinite(probabilities).all(axis=1)
    named = decode_predictions(probabilities[is_finite], question.top, question.class_names) if images else []
    answers = zip(is_finite, is_finite.cumsum() - 1, strict=True)
    for name, image in batch:
        if isinstance(image, str):
            yield {"file": name, "error": image}
            continue
        is_named, row = next(answers)
        if is_named:
            yield {"file": name, "predictions": named[row]}
        else:
            yield {"file": name, "error": "The model's output is not finite."}
