"""Training with a recipe through `model.fit`, which can be stopped anywhere and resumed exactly there."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from se_keras.errors import check_count
from se_keras.files import replacing
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import preprocessing_of
from se_keras.training.batches import check_batches, evaluation_batches, evaluation_parts, for_fit, training_batches
from se_keras.training.distribute import ALONE, Processes, by_itself
from se_keras.training.recipes import Phase, Recipe, make_optimizer
from se_keras.training.run_folder import (
    BEST_FILE,
    FINAL_FILE,
    LOG_FILE,
    STATE_FILE,
    begin_run,
    claimed,
    facts_of,
    write_log,
)
from se_keras.training.signals import signals_noted
from se_keras.training.sources import Data
from se_keras.training.state import (
    Position,
    check_position,
    read_position,
    restore_state,
    save_state,
    state_variables,
)
from se_keras.training.trainable import Flags, as_given, check_phases, check_scores, flags_in, flags_of, set_flags

EVALUATION_BATCH = 128
# Steps between the checks of several processes whether one was asked to stop.
ASK_EVERY = 10


class TrainingDivergedError(RuntimeError):
    """An error in a run whose loss is no longer finite."""


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Args:
        history: Metrics of every epoch, in order.
        best: Best validation accuracy, a fraction of 1.
        folder: The run's folder.
    """

    history: tuple[dict[str, float], ...]
    best: float
    folder: pathlib.Path


def train(
    model: keras.Model,
    data: Data,
    recipe: Recipe,
    folder: str | os.PathLike,
    *,
    seed: int = 0,
    resume: bool = False,
    patience: int | None = None,
    save_every: float = 600.0,
    threads: int = 2,
    jit_compile: bool | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    notes: dict[str, Any] | None = None,
    processes: Processes = ALONE,
) -> TrainingResult:
    """Trains a model, and writes everything needed to resume the run or to know how it was made.

    The folder holds `run.json` (recipe, network, data, versions, seed), `log.csv`, the state
    (`state.safetensors`), the model of the epoch with the best validation accuracy (`best.keras`), and, when
    training is complete, the last model (`model.keras`). The state is saved after each epoch, every `save_every`
    seconds within an epoch, and on Ctrl-C, after the current step. A resumed run
    sees the same images in the same order and ends with the same weights.

    Layers that are not trainable at the time of the call, also those of models inside the model, stay frozen in every
    phase. The saved models, and the model afterwards, have their original flags; compile the model before another
    `fit`.

    Args:
        model: A model with its preprocessing inside (`include_preprocessing=True`) that ends in a softmax over its
            classes.
        data: The images to train and validate on.
        recipe: The recipe.
        folder: The run's folder.
        seed: Seed of the order, the augmentation, and dropout; an integer, at least 0. The caller initializes the
            weights before.
        resume: Whether to resume the run in the folder.
        patience: Epochs without a better validation accuracy after which to stop. None never stops early.
        save_every: Seconds between saves within an epoch.
        threads: Number of threads that read and augment images.
        jit_compile: As in `keras.Model.compile`.
        callbacks: Keras callbacks, for example for TensorBoard; each process runs its own.
        notes: Further entries of `run.json`, which are also compared on resuming.
        processes: The value of `distribute.join` or `distribute.mirrored`, inside of which the model was built. All
            processes must see the same folder; a run may be resumed with another number of processes.

    Returns:
        The `TrainingResult`.

    Raises:
        FileExistsError: The folder already holds a run, and `resume` is False.
        FileNotFoundError: The folder holds no run, and `resume` is True.
        InUseError: Another process trains in the folder.
        ValueError: The model, recipe, data, or seed differs from that of the resumed run; the model has another
            number of classes than the data, ends in sigmoids or logits, or does not take RGB images; there are fewer
            images than a batch takes; the devices cannot share a batch evenly; or all layers of a phase are frozen.
        ImportError: Grain is not installed.
        ProcessFailedError: Another process failed.
        TrainingDivergedError: The loss became infinite or NaN; the last good state is kept.
        KeyboardInterrupt: Ctrl-C was pressed; the state is saved first.
    """
    seed, threads = check_count("seed", seed, least=0), check_count("threads", threads)
    patience = None if patience is None else check_count("patience", patience)
    if model.input_shape[-1] != 3:
        raise ValueError(
            f"A model to train must take RGB images, (height, width, 3); {model.name!r} takes {model.input_shape[1:]}."
        )
    check_scores(model)
    classes = len(data.train.class_names)
    if model.output_shape[-1] != classes:
        raise ValueError(
            f"The model has {model.output_shape[-1]} classes, but {data.name!r} has {classes}. Build it with "
            f"classes={classes}."
        )
    processes.check_batch_size(recipe.batch_size)
    check_batches(data.train, recipe.batch_size)
    check_phases(model, recipe)
    folder = pathlib.Path(folder)
    prepared = preprocessing_of(model)
    facts = facts_of(model, data, recipe, seed, notes or {})
    settings = _Settings(seed, threads, jit_compile, tuple(callbacks))
    with contextlib.ExitStack() as claim:

        def begin() -> None:
            if processes.writes:
                claim.enter_context(claimed(folder))
            begin_run(folder, facts, resume=resume or not processes.writes)

        processes.in_turn(begin)
        state_file = folder / STATE_FILE
        position = read_position(state_file) if state_file.exists() else Position()
        check_position(position, recipe, state_file)
        if position.history and processes.writes:  # the run may have ended between writing the state and the log
            write_log(folder / LOG_FILE, position.history)
        run = _Run(folder, state_file, save_every, patience, position, flags_of(model), processes)
        try:
            with signals_noted(run):
                _run_phases(model, data, recipe, prepared, run, settings)
        finally:
            set_flags(run.flags)
        processes.in_turn(lambda: run.save_model(model, FINAL_FILE))
    return TrainingResult(run.position.history, run.position.best or 0.0, folder)


def _run_phases(
    model: keras.Model,
    data: Data,
    recipe: Recipe,
    prepared: Preprocessing,
    run: _Run,
    settings: _Settings,
) -> None:
    """Runs the remaining phases after `run.position`, which is kept up to date."""
    resumed = run.state_file.exists()
    for index in range(run.position.phase, len(recipe.phases)):
        phase = recipe.phases[index]
        if index != run.position.phase:
            run.position = dataclasses.replace(run.position, phase=index, epoch=0, step=0)
        set_flags(flags_in(phase, run.flags))
        keras.utils.set_random_seed(settings.seed + index)
        model.compile(
            make_optimizer(recipe, phase, max(len(data.train) // recipe.batch_size, 1)),
            keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
            weighted_metrics=[keras.metrics.CategoricalAccuracy("accuracy")],  # see `evaluation_parts`
            jit_compile=settings.jit_compile,
        )
        model.optimizer.build(model.trainable_variables)
        if resumed and run.position.step:
            # Keras creates the metrics' variables at the first batch, but a resumed epoch restores them before it.
            height, width = prepared.height_width
            classes = len(data.train.class_names)
            count = run.processes.devices // run.processes.count
            model.test_on_batch(np.zeros((count, height, width, 3), np.uint8), np.zeros((count, classes), np.float32))
        _fit(model, data, recipe, phase, prepared, run, settings, restore=resumed)
        resumed = False
        if run.stopped_early:
            return


def _fit(
    model: keras.Model,
    data: Data,
    recipe: Recipe,
    phase: Phase,
    prepared: Preprocessing,
    run: _Run,
    settings: _Settings,
    *,
    restore: bool,
) -> None:
    """Fits the rest of one phase; a partial epoch is completed by its own shorter fit."""
    steps = len(data.train) // recipe.batch_size
    seed = settings.seed + run.position.phase
    validation, validation_steps = _validation(data, prepared, phase, run.processes, settings.threads)
    run.stopped_early = restore and not run.position.step and run.is_stale()
    spans = [] if run.stopped_early else _spans(run.position, phase)
    if restore and not spans:  # the run was stopped at the end of this phase, or early
        restore_state(run.state_file, state_variables(model))
        if recipe.average is not None:
            model.optimizer.finalize_variable_values(model.trainable_variables)
    for begin, end, step in spans:
        batches = training_batches(
            data.train,
            prepared,
            batch_size=recipe.batch_size,
            seed=seed,
            transforms=recipe.transforms,
            batch_transforms=recipe.batch_transforms,
            epochs=phase.epochs,
            start=begin * steps + step,
            shard=(run.processes.index, run.processes.count),
            threads=settings.threads,
        )
        model.fit(
            for_fit(batches),
            epochs=end,
            initial_epoch=begin,
            steps_per_epoch=steps - step,
            shuffle=False,
            validation_data=for_fit(validation),
            validation_steps=validation_steps,
            callbacks=[_Keeper(run, step, restores=restore, averages=recipe.average is not None), *settings.callbacks],
            verbose=0,
        )
        # Keras ends a fit by assigning the averaged weights; further training needs the raw ones.
        restore = recipe.average is not None
        if run.must_stop():
            raise KeyboardInterrupt
        if run.stopped_early:
            return


def _validation(
    data: Data, prepared: Preprocessing, phase: Phase, processes: Processes, threads: int
) -> tuple[Any, int]:
    """Returns batches for a phase's validations, and the number of batches in one."""
    devices = processes.devices
    batch_size = math.ceil(EVALUATION_BATCH / devices) * devices
    steps = math.ceil(len(data.validation) / batch_size)
    shared = {"batch_size": batch_size, "epochs": phase.epochs, "threads": threads}
    if devices == 1:
        return evaluation_batches(data.validation, prepared, **shared), steps
    shard = (processes.index, processes.count)
    return evaluation_parts(data.validation, prepared, shard=shard, **shared), steps


def _spans(position: Position, phase: Phase) -> list[tuple[int, int, int]]:
    """Returns the first epoch, last epoch, and first step of each remaining fit of a phase."""
    if position.epoch >= phase.epochs:
        return []
    if not position.step:
        return [(position.epoch, phase.epochs, 0)]
    begun = (position.epoch, position.epoch + 1, position.step)
    whole = (position.epoch + 1, phase.epochs, 0)
    return [begun, whole] if position.epoch + 1 < phase.epochs else [begun]


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The settings of a run, apart from the recipe."""

    seed: int
    threads: int
    jit_compile: bool | str
    callbacks: tuple[keras.callbacks.Callback, ...]


@dataclasses.dataclass
class _Run:
    """The state that the callbacks of one run share."""

    folder: pathlib.Path
    state_file: pathlib.Path
    save_every: float
    patience: int | None
    position: Position
    flags: Flags
    processes: Processes = ALONE
    interrupted: bool = False
    stopped_early: bool = False
    saved_at: float = dataclasses.field(default_factory=time.monotonic)

    def save(self, model: keras.Model) -> None:
        if self.processes.writes:
            save_state(self.state_file, model, self.position)
        self.saved_at = time.monotonic()

    def save_model(self, model: keras.Model, name: str) -> None:
        if self.processes.writes:
            with (
                by_itself(),
                as_given(model, self.flags),
                replacing(self.folder / name, overwrite=True) as temporary,
            ):
                model.save(temporary)

    def must_stop(self, step: int = 0) -> bool:
        """Returns whether to stop here; several processes must stop after the same step, and asking takes time."""
        if self.processes.count > 1 and step % ASK_EVERY:
            return False
        self.interrupted = self.processes.any(self.interrupted)
        return self.interrupted

    def is_stale(self) -> bool:
        """Returns whether at least `patience` epochs have passed without a better validation accuracy."""
        if self.patience is None or not self.position.history:
            return False
        accuracies = [row["val_accuracy"] for row in self.position.history]
        return len(accuracies) - 1 - int(np.argmax(accuracies)) >= self.patience


class _Keeper(keras.callbacks.Callback):
    """A callback that saves and restores the state, keeps the best model and the log, and stops the run."""

    def __init__(self, run: _Run, first_step: int, *, restores: bool, averages: bool) -> None:
        super().__init__()
        self.run, self.first_step, self.restores, self.averages = run, first_step, restores, averages
        self.raw: list[Any] | None = None
        self.started = time.perf_counter()

    def on_train_begin(self, logs: Any = None) -> None:
        if self.restores:
            variables = state_variables(self.model)
            restore_state(self.run.state_file, variables[: len(variables) - len(self.model.metrics_variables)])

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.started = time.perf_counter()
        if self.restores and self.first_step:
            restore_state(self.run.state_file, state_variables(self.model))  # Keras has just reset the metrics
        self.restores = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = self.first_step + batch + 1
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            epoch = len(self.run.position.history) + 1
            raise TrainingDivergedError(
                f"The loss became {loss} in step {step} of epoch {epoch}. The last good state is in "
                f"{os.fspath(self.run.state_file)!r}; try a lower learning rate, a longer warmup, or clip_norm."
            )
        if batch + 1 == self.params["steps"]:
            return  # `on_epoch_end` saves and stops after a complete epoch
        overdue = time.monotonic() - self.run.saved_at > self.run.save_every
        stops = self.run.must_stop(step)
        if stops or overdue:
            self.run.position = dataclasses.replace(self.run.position, step=step)
            self.run.save(self.model)
        if stops:
            # Keras would validate and end the epoch as if it were complete.
            raise KeyboardInterrupt

    def on_test_begin(self, logs: Any = None) -> None:
        if self.averages:
            model = self.model
            self.raw = [keras.ops.copy(variable.value) for variable in model.trainable_variables]
            model.optimizer.finalize_variable_values(model.trainable_variables)
            for variable in model.trainable_variables:
                # On JAX it has become the optimizer's own array, which an evaluation would consume.
                variable.assign(keras.ops.copy(variable.value))

    def on_test_end(self, logs: Any = None) -> None:
        accuracy, best = float((logs or {})["accuracy"]), self.run.position.best
        if best is None or accuracy > best:
            self.run.save_model(self.model, BEST_FILE)
            self.run.position = dataclasses.replace(self.run.position, best=accuracy)
        if self.raw is not None:
            for variable, value in zip(self.model.trainable_variables, self.raw, strict=True):
                variable.assign(value)
            self.raw = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = {
            "epoch": len(self.run.position.history) + 1,
            **{name: float(value) for name, value in (logs or {}).items()},
            "seconds": round(time.perf_counter() - self.started, 2),
        }
        self.first_step = 0
        history = (*self.run.position.history, row)
        self.run.position = dataclasses.replace(self.run.position, epoch=epoch + 1, step=0, history=history)
        self.run.save(self.model)
        if self.run.processes.writes:
            write_log(self.run.folder / LOG_FILE, history)
        if self.run.is_stale():
            self.run.stopped_early = True
            self.model.stop_training = True
        if self.run.must_stop():
            self.model.stop_training = True
