"""The folder of a run: its settings, their comparison on resuming, and the log."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.class_names_file import NAMES_FILE
from se_keras.files import finish_targets, json_with, kind_of, locked, replacing
from se_keras.training.recipes import Recipe
from se_keras.training.sources import Data

STATE_FILE = "state.safetensors"
RUN_FILE = "run.json"
LOG_FILE = "log.csv"
BEST_FILE = "best.keras"
FINAL_FILE = "model.keras"
LABELS_FILE = NAMES_FILE
METRICS_FILE = "metrics.json"
CURVES_FILE = "curves.png"
CONFUSION_FILE = "confusion.png"
BROKEN_FILE = "broken.txt"
LOCK_FILE = ".lock"

# Files that are written once something has been trained; a run that failed earlier may be started again.
_TRAINED = (STATE_FILE, LOG_FILE, BEST_FILE, FINAL_FILE, METRICS_FILE, LABELS_FILE, CURVES_FILE, CONFUSION_FILE)
_WHERE_DATA_ARE = ("data.name ", "arguments.data ")
_RUN = json_with("facts", "versions", "started")
_HELD = threading.local()


@contextlib.contextmanager
def claimed(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from training in a folder while a block runs; nested blocks may also claim it.

    Args:
        folder: A run's folder; created if it is missing, and removed if nothing was written into it.

    Yields:
        Nothing.

    Raises:
        InUseError: Another process, or another thread of this one, trains in the folder.
    """
    held, key = vars(_HELD), os.path.realpath(folder)
    if key in held:
        yield
        return
    is_new = not os.path.lexists(folder)
    try:
        with locked(folder / LOCK_FILE, folder):
            # Removes partial files of a dead process, including those that this one may not write again.
            finish_targets({folder / name: kind_of(name) for name in _TRAINED})
            held[key] = True
            try:
                yield
            finally:
                del held[key]
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def read_run(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads the facts that a run was started with.

    Args:
        folder: The run's folder.

    Returns:
        The result of `facts_of` at the start.

    Raises:
        FileNotFoundError: The folder holds no run.
        ValueError: `run.json` is damaged.
    """
    file = pathlib.Path(folder) / RUN_FILE
    if not file.is_file():
        raise FileNotFoundError(f"There is no run to resume in {os.fspath(folder)!r}: {RUN_FILE} is missing.")
    try:
        facts = json.loads(file.read_text("utf-8"))["facts"]
        if not isinstance(facts, dict):
            raise TypeError("its facts are not an object")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{os.fspath(file)!r} is damaged or does not belong to a run ({type(error).__name__}: {error}). Restore a "
            "copy of it, or start a new run in another folder."
        ) from error
    return facts


def facts_of(model: keras.Model, data: Data, recipe: Recipe, seed: int, notes: dict[str, Any]) -> dict[str, Any]:
    """Returns the facts that identify a run and must be the same when it is resumed.

    Args:
        model: The network.
        data: The images that it is trained and validated on.
        recipe: The recipe.
        seed: Seed of the run.
        notes: Further facts to compare.

    Returns:
        Names, counts, fingerprints, and settings, as values for JSON.
    """
    return {
        "model": {
            "name": model.name,
            "parameters": model.count_params(),
            "input_shape": list(model.input_shape),
        },
        "data": {
            "name": data.name,
            "train": len(data.train),
            "validation": len(data.validation),
            "classes": list(data.train.class_names),
            "fingerprint": [data.train.fingerprint, data.validation.fingerprint],
        },
        "recipe": _as_json(recipe),
        "seed": seed,
        "backend": keras.backend.backend(),
        **notes,
    }


def _as_json(recipe: Recipe) -> dict[str, Any]:
    def named(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            content = {field.name: named(getattr(value, field.name)) for field in dataclasses.fields(value)}
            return {"type": type(value).__name__, **content}
        if isinstance(value, tuple | list):
            return [named(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value  # JSON takes Python numbers only

    content = named(recipe)
    del content["evidence"]  # the evidence for a recipe may change while one of its runs is stopped
    return content


def check_new(folder: pathlib.Path) -> None:
    """Checks that nothing has been trained in a folder; a run that failed earlier may be started again.

    Args:
        folder: A run's folder; it need not exist.

    Raises:
        FileExistsError: The folder holds a state, a log, a model, or another result of a run.
    """
    found = next((name for name in _TRAINED if os.path.lexists(folder / name)), None)
    if found:
        raise FileExistsError(
            f"{os.fspath(folder)!r} already holds a run (it has {found!r}). Resume it (--resume on the command "
            "line, resume=True in Python), or choose another folder for a new run."
        )


def begin_run(folder: pathlib.Path, facts: dict[str, Any], *, resume: bool) -> None:
    """Starts a run in a folder, or checks that the run in it is the same.

    Args:
        folder: The run's folder; created if it is missing.
        facts: The result of `facts_of`.
        resume: Whether to resume a run.

    Raises:
        FileExistsError: See `check_new`; only if `resume` is False.
        FileNotFoundError: The folder holds no run, and `resume` is True.
        ValueError: The run was started with other facts, or `run.json` is damaged.
    """
    if resume:
        _compare(read_run(folder), facts, folder)
        return
    check_new(folder)
    content = {"facts": facts, "versions": versions(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
    with replacing(folder / RUN_FILE, overwrite=True, kind=_RUN) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _compare(then: dict[str, Any], now: dict[str, Any], folder: pathlib.Path) -> None:
    now = json.loads(json.dumps(now))
    # Images may have moved: the comparison uses their fingerprint, which does not depend on the path.
    differences = [text for text in _differences(then, now, "") if not text.startswith(_WHERE_DATA_ARE)]
    if differences:
        raise ValueError(
            f"The run in {os.fspath(folder)!r} was started with other settings; resume it with the same, or choose "
            f"another folder. Differences: {'; '.join(differences)}."
        )


def _differences(then: Any, now: Any, name: str) -> list[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*then, *now}):
            found += _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
        return found
    return [] if then == now else [f"{name} was {then!r}, is now {now!r}"]


def versions() -> dict[str, str]:
    """Returns the versions that a result may depend on: packages, type of machine, and commit of this package.

    Returns:
        A dictionary from names to versions.
    """
    packages = ("keras", "tensorflow", "jax", "torch", "numpy", "grain", "pillow", "se_keras")
    found = {"python": platform.python_version(), "machine": f"{os.cpu_count()} cores, {platform.machine()}"}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _git("rev-parse", "HEAD")
    if commit:
        found["commit"] = commit + (" with changes" if _git("status", "--porcelain") else "")
    return found


def _git(*arguments: str) -> str:
    """Returns git's output for the folder of this package, or "" outside a repository."""
    here = pathlib.Path(__file__).parent
    command: Callable[..., subprocess.CompletedProcess] = subprocess.run
    try:
        done = command(["git", "-C", os.fspath(here), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write_log(path: pathlib.Path, history: Sequence[dict[str, float]]) -> None:
    """Writes the metrics of all epochs as a table.

    Args:
        path: A `.csv` file; replaced atomically.
        history: One row per epoch. A metric that a row lacks, because the epoch was not validated, is left empty.
    """
    columns = dict.fromkeys(name for row in sorted(history, key=len, reverse=True) for name in row)
    with replacing(path, overwrite=True) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*columns])
        writer.writeheader()
        writer.writerows(history)
