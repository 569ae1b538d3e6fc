"""The engine for one machine: this process classifies the images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection

import keras

from se_keras.prediction.classifier import Question, as_lines, classified
from se_keras.prediction.job import Job


def run(model: keras.Model, question: Question, job: Job, done: Collection[int], advance: Callable[[], None]) -> None:
    """Classifies the parts that are not done, and stores them.

    Args:
        model: The model.
        question: The settings.
        job: The job, with the list of files.
        done: Numbers of the parts that are complete.
        advance: Called after each file.
    """
    rows = classified(model, question, (names for _, names in job.parts(without=done)))
    for index, names in job.parts(without=done):
        answers = []
        for row in itertools.islice(rows, len(names)):
            answers.append(row)
            advance()
        job.write(index, as_lines(answers))
