"""Training with a recipe through `model.fit`, which can be stopped anywhere and resumed exactly there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.class_names import set_class_names
from se_keras.errors import check_count, check_count_or_none
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import preprocessing_of
from se_keras.training.batches import check_batches, fit_data, reading_errors_kept
from se_keras.training.callbacks import EvaluateAverage, KeepBest, SaveRun, StopEarly
from se_keras.training.distribute import ALONE, Processes
from se_keras.training.recipes import Phase, Recipe, make_optimizer
from se_keras.training.run_folder import FINAL_FILE, LOG_FILE, begin_run, claimed, facts_of, write_log
from se_keras.training.sources import Data
from se_keras.training.state import check_progress
from se_keras.training.trainable import check_phases, check_scores, flags_in, flags_of, set_flags


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
    verbose: str | int = "auto",
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

    Layers that are not trainable at the time of the call, including those of models inside the model, stay frozen in
    every phase. The saved models, and the model afterwards, have their original flags, and the class names of the data;
    compile the model before another `fit`.

    Args:
        model: A model with its preprocessing inside (`include_preprocessing=True`) that ends in a softmax over its
            classes.
        data: The images to train and validate on.
        recipe: The recipe.
        folder: The run's folder.
        seed: Seed of the order, the augmentation, and dropout; an integer, at least 0. It does not affect the
            initial weights.
        resume: Whether to resume the run in the folder.
        patience: Epochs without a better validation accuracy after which to stop. None never stops early.
        save_every: Seconds between saves within an epoch.
        threads: Number of threads that read and augment images.
        jit_compile: As in `keras.Model.compile`.
        verbose: As in `keras.Model.fit`; only process 0 shows progress.
        callbacks: Keras callbacks, for example for TensorBoard; each process runs its own.
        notes: Further entries of `run.json`, which are also compared on resuming.
        processes: The value of `distribute.join` or `distribute.mirrored`, inside of which the model was built. All
            processes must see the same folder; a run may be resumed with a different number of processes.

    Returns:
        The `TrainingResult`.

    Raises:
        FileExistsError: The folder already holds a run, and `resume` is False.
        FileNotFoundError: The folder holds no run, and `resume` is True.
        InUseError: Another process is training in the folder.
        ValueError: The model, recipe, data, or seed differs from that of the resumed run; the model has a different
            number of classes than the data, ends in sigmoids or logits, or does not take RGB images; there are fewer
            images than a batch takes; the devices cannot share a batch evenly; or all layers of a phase are frozen.
        ImportError: Grain is not installed.
        ProcessFailedError: Another process failed.
        TrainingDivergedError: The loss became infinite or NaN; the last good state is kept.
        KeyboardInterrupt: Ctrl-C was pressed; the state is saved first.
    """
    seed, threads = check_count("seed", seed, least=0), check_count("threads", threads)
    patience = check_count_or_none("patience", patience)
    _check(model, data, recipe, processes)
    folder = pathlib.Path(folder)
    facts = facts_of(model, data, recipe, seed, notes or {})
    with contextlib.ExitStack() as claim:

        def begin() -> None:
            if processes.writes:
                claim.enter_context(claimed(folder))
            begin_run(folder, facts, resume=resume or not processes.writes)

        processes.in_turn(begin)
        set_class_names(model, data.train.class_names)
        run = SaveRun(folder, save_every=save_every, processes=processes)
        check_progress(run.progress, recipe, run.state_file)
        if run.progress.history and processes.writes:  # the run may have ended between writing the state and the log
            write_log(folder / LOG_FILE, run.progress.history)
        trainer = Trainer(
            model=model,
            data=data,
            recipe=recipe,
            run=run,
            patience=patience,
            seed=seed,
            threads=threads,
            jit_compile=jit_compile,
            verbose=verbose if processes.writes else 0,
            callbacks=callbacks,
        )
        with _signals_noted(run):
            trainer.train()
        processes.in_turn(lambda: run.save_model(model, FINAL_FILE))
    return TrainingResult(run.progress.history, run.progress.best or 0.0, folder)


def _check(model: keras.Model, data: Data, recipe: Recipe, processes: Processes) -> None:
    """Checks whether model, data, and recipe fit together, before anything is written."""
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


def _seed(model: keras.Model, *seed: int) -> None:
    """Begins the random numbers of dropout and the like anew; Keras chose their seeds when the layers were made."""
    states = [variable for variable in model.variables if variable.name == "seed_generator_state"]
    for state, number in zip(states, np.random.SeedSequence(seed).generate_state(len(states)), strict=True):
        state.assign([number >> 1, 0])  # a dtype may be signed


@contextlib.contextmanager
def _signals_noted(run: SaveRun) -> Iterator[None]:
    """Records Ctrl-C, or a scheduler's SIGTERM, in the run instead of interrupting a step; a second signal interrupts.

    Args:
        run: The run in which the signal is recorded.

    Yields:
        Nothing.

    Raises:
        KeyboardInterrupt: A second signal arrived.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers can be set only in the main thread
        yield
        return

    def note(number: int, frame: Any) -> None:
        if run.interrupted:
            raise KeyboardInterrupt
        run.interrupted = True

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            if handler is not None:  # None: set by a program in C that embeds Python
                signal.signal(number, handler)


@dataclasses.dataclass(kw_only=True)
class Trainer:
    """The training of a model by a recipe, from the progress of a run to the end: one `fit` per phase.

    Args:
        model: The model.
        data: The images.
        recipe: The recipe.
        run: The callback that saves and restores the state.
        patience: See `train`, also for the following arguments.
        seed: Seed of the first phase; each further phase adds 1.
        threads: Number of threads.
        jit_compile: For `compile`.
        verbose: For `fit`.
        callbacks: The user's callbacks.
    """

    model: keras.Model
    data: Data
    recipe: Recipe
    run: SaveRun
    patience: int | None
    seed: int
    threads: int
    jit_compile: bool | str
    verbose: str | int
    callbacks: Sequence[keras.callbacks.Callback]

    def __post_init__(self) -> None:
        self.preprocessing: Preprocessing = preprocessing_of(self.model)
        self.early = None if self.patience is None else StopEarly(self.run, patience=self.patience)
        self.flags = self.run.flags = flags_of(self.model)

    def train(self) -> None:
        """Runs the remaining phases."""
        try:
            for index in range(self.run.progress.phase, len(self.recipe.phases)):
                self._begin(index)
                if self.spans():
                    self._fit()
                else:
                    self._restore_end()
                if self.is_stale:
                    return
        finally:
            set_flags(self.flags)

    @property
    def phase(self) -> Phase:
        """Returns the current phase."""
        return self.recipe.phases[self.run.progress.phase]

    @property
    def is_stale(self) -> bool:
        """Returns whether to stop early."""
        return self.early is not None and self.early.is_stale

    def spans(self) -> list[tuple[int, int, int]]:
        """Returns the first epoch, last epoch, and first step of each remaining fit of the phase.

        Keras cannot begin within an epoch, so the rest of a partial epoch has its own shorter fit.
        """
        progress, epochs = self.run.progress, self.phase.epochs
        if progress.step:
            rest = [(progress.epoch + 1, epochs, 0)] if progress.epoch + 1 < epochs else []
            return [(progress.epoch, progress.epoch + 1, progress.step), *rest]
        return [] if self.is_stale or progress.epoch >= epochs else [(progress.epoch, epochs, 0)]

    def _begin(self, index: int) -> None:
        run, model = self.run, self.model
        if index != run.progress.phase:
            run.progress = dataclasses.replace(run.progress, phase=index, epoch=0, step=0)
        set_flags(flags_in(self.phase, self.flags))
        _seed(model, self.seed, index)
        model.compile(
            make_optimizer(self.recipe, self.phase, len(self.data.train) // self.recipe.batch_size),
            keras.losses.CategoricalCrossentropy(label_smoothing=self.recipe.label_smoothing),
            weighted_metrics=[keras.metrics.CategoricalAccuracy("accuracy")],  # see `in_equal_parts`
            jit_compile=self.jit_compile,
        )
        model.optimizer.build(model.trainable_variables)
        if run.restores and run.progress.step:
            # Keras creates the metrics' variables at the first batch, but a resumed epoch restores them before it.
            count = run.processes.devices // run.processes.count
            shape, classes = (count, *self.preprocessing.height_width, 3), len(self.data.train.class_names)
            model.test_on_batch(np.zeros(shape, np.uint8), np.zeros((count, classes), np.float32))

    def _fit(self) -> None:
        """Fits the rest of the phase."""
        run, recipe = self.run, self.recipe
        average = [] if recipe.average is None else [EvaluateAverage()]
        own = [run, KeepBest(run), *average, *([self.early] if self.early else [])]
        for number, (begin, end, step) in enumerate(self.spans()):
            # Keras ends a fit by assigning the averaged weights; further training needs the raw ones.
            run.restores |= bool(number and average)
            images = fit_data(
                self.data,
                self.preprocessing,
                recipe,
                seed=self.seed + run.progress.phase,
                start=(begin, step),
                processes=run.processes,
                threads=self.threads,
            )
            with reading_errors_kept(images["x"], images["validation_data"]):
                self.model.fit(**images, epochs=end, callbacks=[*own, *self.callbacks], verbose=self.verbose)
            if run.must_stop():
                raise KeyboardInterrupt
            if self.is_stale:
                return

    def _restore_end(self) -> None:
        """Restores the weights of a run that was stopped at the end of this phase, or early."""
        if self.run.restores:
            self.run.restore(self.model)
            if self.recipe.average is not None:
                self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        self.run.restores = False
