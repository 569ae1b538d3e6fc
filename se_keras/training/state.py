"""The complete state of a run in one file, which is always intact."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from se_keras.files import replacing
from se_keras.training.recipes import Recipe


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Args:
        phase: Index of the phase.
        epoch: Completed epochs in this phase.
        step: Completed steps in the current epoch.
        history: Metrics of every completed epoch, over all phases.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    history: tuple[dict[str, float], ...] = ()

    @property
    def best(self) -> float | None:
        """Returns the best validation accuracy so far, a fraction of 1; None before the first validation."""
        return max((row["val_accuracy"] for row in self.history if "val_accuracy" in row), default=None)


def state_variables(model: keras.Model) -> list[Any]:
    """Returns the variables that a training step uses: weights, statistics, seeds, optimizer, and then the metrics.

    Args:
        model: A compiled model whose optimizer is built.

    Returns:
        Keras variables, in an order determined by the model and its optimizer alone.
    """
    metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    return [*own, *model.optimizer.variables, *model.metrics_variables]


def save_state(path: str | os.PathLike, model: keras.Model, progress: Progress) -> None:
    """Writes the state of a run.

    Args:
        path: The file; it is replaced atomically, so a crash leaves the old one.
        model: See `state_variables`.
        progress: The progress of the run.

    Raises:
        OSError: The file could not be written.
    """
    arrays = {f"{index}:{variable.path}": _value(variable) for index, variable in enumerate(state_variables(model))}
    metadata = {"position": json.dumps(dataclasses.asdict(progress)), "optimizer": _optimizer_of(model)}
    with replacing(path, overwrite=True) as temporary:
        save_file(arrays, temporary, metadata=metadata)


def _optimizer_of(model: keras.Model) -> str:
    """Returns the kind of a model's optimizer, and the number of its variables, such as "SGD, 12 variables"."""
    return f"{type(model.optimizer).__name__}, {len(model.optimizer.variables)} variables"


def _value(variable: Any) -> np.ndarray:
    # Converted to a tensor first, because MirroredStrategy keeps a metric in parts that are added when it is read.
    return np.array(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable)), order="C")


def read_progress(path: str | os.PathLike) -> Progress:
    """Reads the progress of the run in a file.

    Args:
        path: A file that `save_state` wrote.

    Returns:
        The progress.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            content = json.loads((file.metadata() or {})["position"])
        return _progress(content)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


_ANOTHER_RUN = "Resume with the run's own model and recipe, or start a new run in another folder."


def _progress(content: dict[str, Any]) -> Progress:
    progress = Progress(**{**content, "history": tuple(content["history"])})
    counts = (progress.phase, progress.epoch, progress.step)
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError(f"phase, epoch, and step are {counts}")
    if not all(isinstance(row, dict) for row in progress.history):
        raise ValueError("its history has an epoch without metrics")
    return progress


def _damaged(path: str | os.PathLike, error: Exception) -> ValueError:
    return ValueError(
        f"{os.fspath(path)!r} is damaged or not the state of a run ({type(error).__name__}: {error}). Restore a copy "
        "of it, or start a new run in another folder."
    )


def check_progress(progress: Progress, recipe: Recipe, path: str | os.PathLike) -> None:
    """Checks whether a run with a given recipe can have reached a state of progress.

    Args:
        progress: The progress that `read_progress` returned.
        recipe: The recipe of the run.
        path: The file, for the message.

    Raises:
        ValueError: The recipe has no such phase, or fewer epochs in it; or an epoch was not validated.
    """
    if progress.phase >= len(recipe.phases) or progress.epoch > recipe.phases[progress.phase].epochs:
        place = f"epoch {progress.epoch} of phase {progress.phase + 1}"
        raise _damaged(path, ValueError(f"recipe {recipe.name!r} has no {place}"))
    if not all("val_accuracy" in row for row in progress.history):
        raise _damaged(path, ValueError("its history has an epoch without validation accuracy"))


def restore_state(path: str | os.PathLike, model: keras.Model, *, metrics: bool) -> None:
    """Assigns the values that `save_state` wrote.

    Args:
        path: The file.
        model: The same model in the same phase, compiled, with its optimizer built.
        metrics: Whether to also restore the values of the metrics within an epoch.

    Raises:
        ValueError: The file is damaged, or it belongs to a model or optimizer with other variables.
    """
    variables = state_variables(model)
    variables = variables if metrics else variables[: len(variables) - len(model.metrics_variables)]
    try:
        opened = safe_open(os.fspath(path), framework="numpy")
        names = sorted(opened.keys(), key=lambda name: int(name.partition(":")[0]))
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    with opened as file:
        optimizer = (file.metadata() or {}).get("optimizer")
        if optimizer != _optimizer_of(model):
            raise ValueError(
                f"{os.fspath(pathlib.Path(path))!r} belongs to the optimizer {optimizer}, but the model is compiled "
                f"with {_optimizer_of(model)}. {_ANOTHER_RUN}"
            )
        if len(names) < len(variables):
            raise ValueError(
                f"{os.fspath(pathlib.Path(path))!r} holds {len(names)} variables, but this run has "
                f"{len(variables)}; it belongs to another model, recipe, or version of Keras. {_ANOTHER_RUN}"
            )
        for name, variable in zip(names, variables, strict=False):
            value = file.get_tensor(name)
            if value.shape != tuple(variable.shape) or name.rpartition("/")[2] != variable.name:
                raise ValueError(
                    f"{name!r} in {os.fspath(path)!r} has shape {value.shape}, but this run needs "
                    f"{variable.path!r} of shape {tuple(variable.shape)}; it belongs to another model, recipe, or "
                    f"version of Keras. {_ANOTHER_RUN}"
                )
            variable.assign(value)
