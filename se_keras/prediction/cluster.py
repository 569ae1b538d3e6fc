"""The engine for several machines: Ray Data hands out the parts, this process alone writes the answers.

A part is one task without state, so Ray gives it to another worker when a worker or its machine
dies; and since only whole parts come back and each has its number, nothing is lost or stored twice.
If the machine of this process dies, the same call resumes.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import pathlib
import tempfile
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from se_keras.errors import missing_package
from se_keras.prediction.classifier import Question, as_lines, classified
from se_keras.prediction.job import Job

PARTS_AT_ONCE = 4096  # handed to Ray Data together; what bounds the memory of this process


def run(
    model: keras.Model,
    question: Question,
    job: Job,
    done: Collection[int],
    advance: Callable[[], None],
    *,
    workers: int | None,
    gpus_per_worker: float,
) -> None:
    """Classifies the parts that are not done on a Ray cluster and stores each.

    Args:
        model: The model; it is sent to the workers.
        question: What to ask about each image.
        job: Where the files are listed and the answers go.
        done: Numbers of the parts that are complete.
        advance: Called for each file of a part that is done.
        workers: How many tasks at most at the same time; None: as many as the cluster has CPUs.
        gpus_per_worker: GPUs, or the share of one, that a task holds.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: Ray gave up, e.g. because a part failed again and again.
    """
    import_ray()
    with _cluster() as ray:
        reference = ray.put(_saved(model))
        parts = job.parts(without=done)
        while wave := list(itertools.islice(parts, PARTS_AT_ONCE)):
            items = [{"part": index, "files": json.dumps(names)} for index, names in wave]
            dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
                _answered,
                fn_kwargs={"model": reference, "question": question},
                concurrency=workers,
                num_cpus=1,
                **_gpus(gpus_per_worker),
                runtime_env={"env_vars": {"KERAS_BACKEND": keras.backend.backend(), "TF_CPP_MIN_LOG_LEVEL": "3"}},
            )
            try:
                for row in dataset.iter_rows():
                    job.write(row["part"], row["lines"])
                    for _ in range(job.files_in([row["part"]])):
                        advance()
            except ray.exceptions.RayError as error:
                raise RuntimeError(f"Ray could not finish the work: {error}") from error


def import_ray() -> Any:
    """Ray with its Data library.

    Returns:
        The module.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_package("ray", "ray", "Prediction with engine='ray'") from error
    return ray


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Ray as the caller connected it; else connected to the cluster that is found, or to a new one on this machine."""
    ray = import_ray()
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    own = not ray.is_initialized()
    if own:
        ray.init(logging_level="ERROR", log_to_driver=False)
    try:
        yield ray
    finally:
        logger.setLevel(level)
        context.enable_progress_bars, context.print_on_execution_start = before
        if own:
            ray.shutdown()


def _gpus(share: float) -> dict[str, Any]:
    # Unless told otherwise, Ray ends a process that had a GPU after one task, and each would load the model anew.
    return {"num_gpus": share, "max_calls": 0} if share else {}


def _saved(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()


@functools.lru_cache(maxsize=1)
def _loaded(reference: Any) -> keras.Model:
    """The model, once a worker process."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.keras")
        path.write_bytes(import_ray().get(reference))
        return keras.models.load_model(path, compile=False)


def _answered(row: dict[str, Any], model: Any, question: Question) -> dict[str, Any]:
    """What a worker does: one part, from the names of its files to the text that is stored."""
    answers = classified(_loaded(model), question, [json.loads(row["files"])])
    return {"part": row["part"], "lines": as_lines(answers)}
