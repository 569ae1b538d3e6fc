"""The folder of a run: what it was begun with, what it may be resumed with, and the log."""

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

from se_keras.class_names import NAMES_FILE
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

# What is written once something has been trained; a run that failed before may be begun anew.
_TRAINED = (STATE_FILE, LOG_FILE, BEST_FILE, FINAL_FILE, METRICS_FILE, LABELS_FILE, CURVES_FILE, CONFUSION_FILE)
_WHERE_DATA_ARE = ("data.name ", "arguments.data ")
_RUN = json_with("facts", "versions", "started")
_HELD = threading.local()


@contextlib.contextmanager
def claimed(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from training in a folder while a block runs; blocks inside of it may claim it, too.

    Args:
        folder: A run's folder; made if it is missing, and removed if nothing was written into it.

    Yields:
        Nothing.

    Raises:
        InUseError: Another process, or another thread of this one, trains in it.
    """
    held, key = vars(_HELD), os.path.realpath(folder)
    if key in held:
        yield
        return
    is_new = not os.path.lexists(folder)
    try:
        with locked(folder / LOCK_FILE, folder):
            # What a dead process left half-written there goes, also of files that this one may not write again.
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
    """Reads what a run was begun with.

    Args:
        folder: The run's folder.

    Returns:
        What `facts_of` gave.

    Raises:
        FileNotFoundError: It holds none.
        ValueError: `run.json` is damaged.
    """
    file = pathlib.Path(folder) / RUN_FILE
    if not file.is_file():
        raise FileNotFoundError(f"There is no run to resume in {os.fspath(folder)!r}: {RUN_FILE} is missing.")
    try:
        facts = json.loads(file.read_text("utf-8"))["facts"]
        if not isinstance(facts, dict):
            raise TypeError("its facts are no object")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{os.fspath(file)!r} is damaged or not of a run ({type(error).__name__}: {error}). Put back a copy of it, "
            "or begin a new run in another folder."
        ) from error
    return facts


def facts_of(model: keras.Model, data: Data, recipe: Recipe, seed: int, notes: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to be the same.

    Args:
        model: The network.
        data: What it is trained and validated on.
        recipe: How.
        seed: Of the run.
        notes: What else the caller compares.

    Returns:
        Names, counts, fingerprints and settings that JSON can hold.
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
        return value.item() if isinstance(value, np.generic) else value  # JSON holds Python's numbers only

    content = named(recipe)
    del content["evidence"]  # what is known of a recipe may grow while one of its runs is stopped
    return content


def check_new(folder: pathlib.Path) -> None:
    """Refuses a folder in which something has been trained; a run that failed before may be begun anew.

    Args:
        folder: A run's folder; it need not exist.

    Raises:
        FileExistsError: The folder holds a state, a log, a model or what else a run leaves.
    """
    found = next((name for name in _TRAINED if os.path.lexists(folder / name)), None)
    if found:
        raise FileExistsError(
            f"{os.fspath(folder)!r} holds a run already, or at least {found!r}. Go on with it (--resume on the command "
            "line, resume=True in Python), or choose another folder for a new one."
        )


def begin_run(folder: pathlib.Path, facts: dict[str, Any], *, resume: bool) -> None:
    """Begins a run in a folder, or makes sure that the one in it is the same.

    Args:
        folder: The run's folder; made if it is missing.
        facts: What `facts_of` gave.
        resume: Whether to go on with a run.

    Raises:
        FileExistsError: See `check_new`; only if `resume` is False.
        FileNotFoundError: It holds none and `resume` is True.
        ValueError: The run was begun with other facts, or `run.json` is damaged.
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
    # Images may have moved: their fingerprint is compared, which does not depend on where they are.
    differences = [text for text in _differences(then, now, "") if not text.startswith(_WHERE_DATA_ARE)]
    if differences:
        raise ValueError(
            f"The run in {os.fspath(folder)!r} was begun with other settings; resume it with the same, or choose "
            f"another folder. Different: {'; '.join(differences)}."
        )


def _differences(then: Any, now: Any, name: str) -> list[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*then, *now}):
            found += _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
        return found
    return [] if then == now else [f"{name} was {then!r}, is {now!r}"]


def versions() -> dict[str, str]:
    """What a result may depend on: versions of packages, kind of machine, commit of this package.

    Returns:
        Names and versions.
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
    """What git says of the folder that this package lies in; "" where it lies in none."""
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
        path: A `.csv` file; replaced in one step.
        history: One row an epoch, all with the same names.
    """
    with replacing(path, overwrite=True) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
