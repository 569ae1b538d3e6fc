"""Keras callbacks for `fit` that save a run so that it can be resumed, keep its best model, and stop it early."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import time
import warnings
from typing import Any

import keras
import numpy as np

from se_keras.errors import check_count
from se_keras.files import replacing
from se_keras.training.distribute import ALONE, Processes, by_itself
from se_keras.training.run_folder import BEST_FILE, LOG_FILE, STATE_FILE, write_log
from se_keras.training.state import Progress, read_progress, restore_state, save_state
from se_keras.training.trainable import Flags, as_given, flags_of

# Steps between checks, when there are several processes, of whether one was asked to stop.
ASK_EVERY = 10


class TrainingDivergedError(RuntimeError):
    """An error in a run whose loss is no longer finite."""


class SaveRun(keras.callbacks.Callback):
    """A callback that saves the complete state of a run after each epoch, and restores it.

    The state (`state.safetensors`) has the weights, the optimizer, the seeds of the layers, and the metrics of all
    epochs, which are also written as a table (`log.csv`). Both are replaced atomically. If the folder already has a
    state, the next `fit` starts from it: pass `initial_epoch=run.epoch`, and let the data start there, as `fit_data`
    does. The resumed run then ends with the same weights, bit for bit.

    `fit` can only resume after a complete epoch. A state that is saved within an epoch (`save_every`) needs another
    `fit` for the rest of that epoch; `se_keras.training.train` does this, and checks that data and recipe are the same.

    Args:
        folder: The run's folder; created if it is missing. Only one process at a time may train in it.
        save_every: Seconds between saves within an epoch. By default, the state is saved after each epoch only.
        processes: The value of `distribute.join` or `distribute.mirrored`; only process 0 writes.

    Attributes:
        progress: The `Progress` of the run: number of epochs and steps, and the metrics.
        interrupted: Whether to save and stop after the current step. `train` sets it on Ctrl-C.

    Raises:
        ValueError: The state in the folder is damaged or, in `fit`, belongs to another model or optimizer.
        TrainingDivergedError: In `fit`, the loss became infinite or NaN; the last good state is kept.

    Example:

        run = SaveRun("runs/photos")
        images = fit_data(data, preprocessing_of(model), recipe, start=(run.epoch, 0))
        model.fit(**images, epochs=7, callbacks=[run])
    """

    def __init__(
        self, folder: str | os.PathLike, *, save_every: float = math.inf, processes: Processes = ALONE
    ) -> None:
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state_file = self.folder / STATE_FILE
        self.save_every, self.processes = save_every, processes
        self.flags: Flags | None = None
        self.restores = self.state_file.exists()
        self.progress = read_progress(self.state_file) if self.restores else Progress()
        self.interrupted = False
        self._first_step = 0
        self._saved_at, self._began_at = time.monotonic(), time.perf_counter()

    @property
    def epoch(self) -> int:
        """Returns the number of completed epochs, in the current phase if a run has several."""
        return self.progress.epoch

    def restore(self, model: keras.Model, *, metrics: bool = False) -> None:
        """Restores the saved state.

        Args:
            model: The compiled model, whose optimizer is built.
            metrics: Whether to also restore the values of the metrics within an epoch.
        """
        restore_state(self.state_file, model, metrics=metrics)

    def save(self, model: keras.Model) -> None:
        """Saves the state.

        Args:
            model: The compiled model, whose optimizer is built.
        """
        if self.processes.writes:
            save_state(self.state_file, model, self.progress)
        self._saved_at = time.monotonic()

    def save_model(self, model: keras.Model, name: str) -> None:
        """Saves the model itself, without its optimizer.

        Args:
            model: The model.
            name: Name of the file in the run's folder.
        """
        flags = flags_of(model) if self.flags is None else self.flags
        if self.processes.writes:
            with by_itself(), as_given(model, flags), replacing(self.folder / name, overwrite=True) as temporary:
                model.save(temporary)

    def must_stop(self, step: int = 0) -> bool:
        """Returns whether to stop here; all processes must stop after the same step, and asking them takes time.

        Args:
            step: Number of completed steps in the epoch.
        """
        if self.processes.count > 1 and step % ASK_EVERY:
            return False
        self.interrupted = self.processes.any(self.interrupted)
        return self.interrupted

    def on_train_begin(self, logs: Any = None) -> None:
        """Restores the state, if there is one."""
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        if self.restores:
            self.restore(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Restores the metrics, if the state is from within this epoch: Keras has just reset them."""
        self._began_at, self._first_step = time.perf_counter(), self.progress.step
        if self.restores and self._first_step:
            self.restore(self.model, metrics=True)
        self.restores = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Saves the state if it is due or if the run is interrupted."""
        step = self._first_step + batch + 1
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            epoch = len(self.progress.history) + 1
            raise TrainingDivergedError(
                f"The loss became {loss} in step {step} of epoch {epoch}. The last good state is in "
                f"{os.fspath(self.state_file)!r}; try a lower learning rate, a longer warmup, or clip_norm."
            )
        if batch + 1 == self.params["steps"]:
            return  # `on_epoch_end` saves and stops after a complete epoch
        overdue = time.monotonic() - self._saved_at > self.save_every
        stops = self.must_stop(step)
        if stops or overdue:
            self.progress = dataclasses.replace(self.progress, step=step)
            self.save(self.model)
        if stops:
            # Keras would validate and end the epoch as if it were complete.
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves the state and the log."""
        row = {
            "epoch": len(self.progress.history) + 1,
            **{name: float(value) for name, value in (logs or {}).items()},
            "seconds": round(time.perf_counter() - self._began_at, 2),
        }
        history = (*self.progress.history, row)
        self.progress = dataclasses.replace(self.progress, epoch=epoch + 1, step=0, history=history)
        self.save(self.model)
        if self.processes.writes:
            write_log(self.folder / LOG_FILE, history)
        if self.must_stop():
            self.model.stop_training = True


class KeepBest(keras.callbacks.Callback):
    """A callback that saves the model whenever the validation accuracy is better than in all earlier epochs of the run.

    Pass it to `fit` with validation data and a metric named "accuracy". The file is replaced atomically, and has no
    optimizer. Epochs that are not validated are not compared; without any validation, a warning says that nothing was
    kept.

    Args:
        run: The run, which knows the earlier epochs, including those of an earlier call.
        name: Name of the file in the run's folder.

    Raises:
        ValueError: In `fit`, there is no metric named "accuracy".

    Example:

        model.fit(**images, epochs=7, callbacks=[run, KeepBest(run)])
    """

    def __init__(self, run: SaveRun, name: str = BEST_FILE) -> None:
        super().__init__()
        self.run, self.name = run, name

    def on_test_end(self, logs: Any = None) -> None:
        """Saves the model if it is the best."""
        accuracy, best = _accuracy(logs, self), self.run.progress.best
        if best is None or accuracy > best:
            self.run.save_model(self.model, self.name)

    def on_train_end(self, logs: Any = None) -> None:
        """Warns if no epoch was validated."""
        _warn_if_never_validated(self.run, self)


class StopEarly(keras.callbacks.Callback):
    """A callback that stops training when the validation accuracy has not improved for some epochs.

    Unlike Keras' `EarlyStopping`, it also counts the epochs before a run was resumed. Epochs that are not validated do
    not count; without any validation, it never stops, and a warning says so. Place it after the run in the list of
    callbacks. A resumed `fit` trains at least one epoch; check `is_stale` first.

    Args:
        run: The run, which knows the earlier epochs.
        patience: Validated epochs without a better accuracy after which to stop; at least 1.

    Raises:
        ValueError: `patience` is below 1, or in `fit`, there is no metric named "accuracy".

    Example:

        model.fit(**images, epochs=7, callbacks=[run, StopEarly(run, patience=3)])
    """

    def __init__(self, run: SaveRun, *, patience: int) -> None:
        super().__init__()
        self.run, self.patience = run, check_count("patience", patience)

    @property
    def is_stale(self) -> bool:
        """Returns whether at least `patience` validated epochs have passed without a better accuracy."""
        accuracies = [row["val_accuracy"] for row in self.run.progress.history if "val_accuracy" in row]
        return bool(accuracies) and len(accuracies) - 1 - int(np.argmax(accuracies)) >= self.patience

    def on_test_end(self, logs: Any = None) -> None:
        """Checks that the accuracy is measured."""
        _accuracy(logs, self)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stops training if the run is stale."""
        if self.is_stale:
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Warns if no epoch was validated."""
        _warn_if_never_validated(self.run, self)


def _accuracy(logs: Any, callback: keras.callbacks.Callback) -> float:
    logs = logs or {}
    if "accuracy" not in logs:
        raise ValueError(
            f"{type(callback).__name__} compares a metric named 'accuracy'; validation gave "
            f"{', '.join(logs) or 'none'}. Compile the model with metrics=['accuracy']."
        )
    return float(logs["accuracy"])


def _warn_if_never_validated(run: SaveRun, callback: keras.callbacks.Callback) -> None:
    if run.progress.history and run.progress.best is None:
        warnings.warn(
            f"{type(callback).__name__} had no effect, because no epoch was validated. Pass `validation_data` to "
            "`fit`, and a `validation_freq` of at most the number of epochs.",
            stacklevel=2,
        )


class EvaluateAverage(keras.callbacks.Callback):
    """A callback that validates with the optimizer's moving average of the weights, and then restores the raw ones.

    Place it after `KeepBest` in the list of callbacks, which then keeps the averaged weights.

    Example:

        model.fit(**images, epochs=7, callbacks=[run, KeepBest(run), EvaluateAverage()])
    """

    def on_test_begin(self, logs: Any = None) -> None:
        """Assigns the averages."""
        variables = self.model.trainable_variables
        self._raw = [keras.ops.copy(variable.value) for variable in variables]
        self.model.optimizer.finalize_variable_values(variables)
        for variable in variables:
            # On JAX it has become the optimizer's own array, which an evaluation would consume.
            variable.assign(keras.ops.copy(variable.value))

    def on_test_end(self, logs: Any = None) -> None:
        """Restores the raw weights."""
        for variable, value in zip(self.model.trainable_variables, self._raw, strict=True):
            variable.assign(value)
