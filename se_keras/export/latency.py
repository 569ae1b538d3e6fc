"""Side-by-side timing of exported files and models, each in its own process, taking turns."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from se_keras.errors import check_count, one_of
from se_keras.export.process import RuntimeRefusedError, Worker
from se_keras.export.runtime import format_of
from se_keras.export.speed import Speed, speed_of
from se_keras.export.structure import size_of, structure_of
from se_keras.timing import interleaved


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """A measurement of one contestant in one setting.

    Args:
        name: Name of the contestant.
        dtype: Precision it computes in.
        size: Size of its file in bytes.
        speed: Seconds per call of the whole batch, and memory.
    """

    name: str
    dtype: str
    size: int
    speed: Speed

    @property
    def images_per_second(self) -> float:
        """Returns the throughput at the median."""
        return self.speed.batch / self.speed.median

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurement as dictionaries, numbers, and text, for JSON."""
        return {**dataclasses.asdict(self), "images_per_second": self.images_per_second}


def benchmark(
    contestants: Mapping[str, keras.Model | str | os.PathLike] | Sequence[str | os.PathLike],
    *,
    threads: Sequence[int] = (1,),
    batch_sizes: Sequence[int] = (1,),
    repeats: int = 30,
    warmups: int = 5,
    gpu: Sequence[str] = (),
    verbose: str | int = "auto",
) -> list[Measurement]:
    """Times exported files and Keras models side by side.

    The contestants take turns, round after round, so a drift in the machine's speed affects all
    of them equally. Each runs in a separate process with its own threads and memory.

    Args:
        contestants: Paths of SavedModels, `.tflite`, `.onnx`, `.xml`, and `.keras` files, Keras models, or one of
            these; or a mapping from names to them. Without it, the names are the paths and the names of the models.
        threads: Numbers of CPU threads, each at least 1. Each is a separate setting.
        batch_sizes: Numbers of images per call, each at least 1. A file with a fixed batch, such
            as a `.tflite` file, processes them sequentially.
        repeats: Timed calls in each setting, at least 1.
        warmups: Untimed calls before them, at least 1.
        gpu: Names of `.tflite` contestants to time in LiteRT's GPU runtime instead.
        verbose: "auto" or 1 to show a progress bar per setting, 0 to show nothing.

    Returns:
        A `Measurement` for each setting and contestant.

    Raises:
        FileNotFoundError: A path does not exist.
        RuntimeRefusedError: A runtime does not run a contestant.
        ValueError: There is no contestant, two have the same name, `gpu` names none of them, a file is not a model, or
            a number is below 1.
    """
    threads = [check_count("threads", count) for count in threads]
    batch_sizes = [check_count("batch_sizes", count) for count in batch_sizes]
    repeats, warmups = check_count("repeats", repeats), check_count("warmups", warmups)
    if not contestants:
        raise ValueError("Pass at least one file or model to time.")
    named = _named(contestants)
    for name in gpu:
        one_of("gpu", name, named)
    found = []
    with _as_files(named) as files:
        for count in threads:
            with _workers(files, count, gpu) as workers:
                for batch in batch_sizes:
                    title = f"Timing, {count} threads, batch {batch}"
                    timers = {name: functools.partial(worker.time, batch) for name, worker in workers.items()}
                    seconds = interleaved(timers, rounds=repeats, warmups=warmups, title=title, verbose=verbose)
                    found += [
                        _measurement(name, files[name], workers[name], count, batch, seconds[name]) for name in files
                    ]
    return found


def _named(contestants: Any) -> dict[str, Any]:
    if isinstance(contestants, Mapping):
        return dict(contestants)
    if isinstance(contestants, str | os.PathLike | keras.Model):
        contestants = [contestants]
    names = [one.name if isinstance(one, keras.Model) else os.fspath(one) for one in contestants]
    if len(set(names)) < len(names):
        raise ValueError(
            f"The names of contestants must differ; received {', '.join(names)}. Pass a mapping from names."
        )
    return dict(zip(names, contestants, strict=True))


@contextlib.contextmanager
def _as_files(contestants: Mapping[str, Any]) -> Iterator[dict[str, pathlib.Path]]:
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for number, (name, contestant) in enumerate(contestants.items()):
            if isinstance(contestant, keras.Model):
                files[name] = pathlib.Path(folder) / f"{number}.keras"
                contestant.save(files[name])
            else:
                files[name] = pathlib.Path(contestant)
                format_of(contestant)  # reports a bad file before anything is timed
        yield files


@contextlib.contextmanager
def _workers(files: Mapping[str, pathlib.Path], threads: int, gpu: Sequence[str]) -> Iterator[dict[str, Worker]]:
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, path in files.items():
            try:
                worker = Worker(path, runtime="tflite_gpu" if name in gpu else None, threads=threads)
            except RuntimeRefusedError as refusal:
                raise RuntimeRefusedError(f"{name!r} cannot be timed: {refusal}") from refusal
            workers[name] = stack.enter_context(worker)
        yield workers


def _measurement(
    name: str, path: pathlib.Path, worker: Worker, threads: int, batch: int, seconds: list[float]
) -> Measurement:
    speed = speed_of(worker.runtime, threads, seconds, worker.peak_memory(), batch=batch)
    return Measurement(name=name, dtype=structure_of(path).dtype, size=size_of(path), speed=speed)
