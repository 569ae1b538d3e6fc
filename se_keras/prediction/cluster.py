"""The engine for several machines: Ray Data distributes the parts, and only this process writes the results.

Each part is a task without state. If a worker or its machine dies, Ray gives its part to another worker. Only complete
parts come back, each with its number, so nothing is lost or stored twice. If the machine of this process dies, the same
call resumes the work.
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

PARTS_AT_ONCE = 4096  # given to Ray Data together; this limits the memory of this process


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
    """Classifies the parts that are not done on a Ray cluster, and stores them.

    Args:
        model: The model; it is sent to the workers.
        question: The settings.
        job: The job, with the list of files.
        done: Numbers of the parts that are complete.
        advance: Called for each file of a part that is done.
        workers: Largest number of tasks at the same time. None uses the number of CPUs of the cluster.
        gpus_per_worker: Number of GPUs, or fraction of one, per task.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: Ray could not finish the work, for example because a part failed repeatedly.
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
    """Imports Ray with its Data library.

    Returns:
        The module.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_package("ray", "ray", "Prediction with engine='ray'") from error
    return ray


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Yields Ray, as the caller has connected it, or connected to a cluster that it finds or starts here."""
    ray = import_ray()
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    own = not ray.is_initialized()
    try:
        if own:
            ray.init(logging_level="ERROR", log_to_driver=False)
        yield ray
    finally:
        logger.setLevel(level)
        context.enable_progress_bars, context.print_on_execution_start = before
        if own:
            ray.shutdown()


def _gpus(share: float) -> dict[str, Any]:
    # By default, Ray ends a process with a GPU after one task, and each process would load the model again.
    return {"num_gpus": share, "max_calls": 0} if share else {}


def _saved(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()


@functools.lru_cache(maxsize=1)
def _loaded(reference: Any) -> keras.Model:
    """Returns the model, which is loaded once per worker process."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.keras")
        path.write_bytes(import_ray().get(reference))
        return keras.models.load_model(path, compile=False)


def _answered(row: dict[str, Any], model: Any, question: Question) -> dict[str, Any]:
    """Classifies a part in a worker: returns the text to store for the names of its files."""
    answers = classified(_loaded(model), question, [json.loads(row["files"])])
    return {"part": row["part"], "lines": as_lines(answers)}
