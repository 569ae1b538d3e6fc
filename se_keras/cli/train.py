"""`se-keras train`: trains a network on images with a recipe, in a run's folder."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import pathlib
from typing import Any

import keras
from rich.progress import Progress

from se_keras.blocks.excitation import SEConfig
from se_keras.class_names_file import write_class_names
from se_keras.cli.console import console, print_json, progress_bars, progress_console, visible
from se_keras.cli.models import check_file, check_name, load_file
from se_keras.errors import missing_package
from se_keras.export.images import left_out
from se_keras.files import replacing, text_of
from se_keras.models.registry import create_model, resolve
from se_keras.training.distribute import ALONE, Processes, join, mirrored
from se_keras.training.evaluate import evaluate, write_metrics
from se_keras.training.figures import draw_confusion, draw_curves
from se_keras.training.loop import TrainingResult, train
from se_keras.training.recipes import Recipe, get_recipe
from se_keras.training.run_folder import (
    BEST_FILE,
    BROKEN_FILE,
    CONFUSION_FILE,
    CURVES_FILE,
    FINAL_FILE,
    LABELS_FILE,
    LOG_FILE,
    METRICS_FILE,
    RUN_FILE,
    check_new,
    claimed,
    read_run,
)
from se_keras.training.sources import Data, open_data
from se_keras.weights.find import find_record
from se_keras.weights.timm_layout import is_layout, read_layout

_BROKEN = text_of(r".*\t.*", name="a list of files left out")
FEW_STEPS = 300  # with fewer, SE-ResNet-20 fine-tuned on 200 photos of flowers was still far from its best
DEFAULTS: dict[str, Any] = {
    "recipe": "finetune",
    "weights": None,
    "plain": False,
    "reduction": None,
    "size": None,
    "epochs": None,
    "batch_size": None,
    "seed": 0,
    "precision": "float32",
    "validation_split": 0.2,
    "strict": False,
}
"""Settings that determine the result, in addition to network and images; --resume reads them from the run's folder."""


def run(options: argparse.Namespace) -> int:
    """Starts or resumes a run, and prints its result."""
    arguments, folder = _arguments(options)
    recipe = _recipe(arguments)
    _check_network(arguments, recipe)  # reports errors before any image is read
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise missing_package("tensorboard", "tensorboard", "--tensorboard")
    if not options.resume:
        check_new(folder)
    with contextlib.ExitStack() as claim:
        try:
            with _processes(options) as processes:
                processes.in_turn(lambda: claim.enter_context(claimed(folder)) if processes.writes else None)
                data = _data(arguments, options)
                if processes.writes:
                    _report(data, folder)
                    if not arguments["epochs"]:
                        _hint(len(data.train), recipe)
                result = _train(arguments, recipe, data, folder, processes, options)
        except KeyboardInterrupt:
            progress_console.print(f"interrupted; resume with: se-keras train --resume {folder}")
            return 130
        return _summary(result.history, data, folder, options) if processes.writes else 0


def _data(arguments: dict[str, Any], options: argparse.Namespace) -> Data:
    """Returns the images of the run, or those of --data if they have moved since it was started."""
    name = options.data or arguments["data"]
    if os.path.isabs(name) and not os.path.exists(name):
        raise FileNotFoundError(
            f"The images of the run are no longer at {name!r}. Name their new location with --data."
        )
    data = open_data(
        name,
        validation_split=arguments["validation_split"],
        strict=arguments["strict"],
    )
    near = os.path.relpath(name) if os.path.isabs(name) else name
    outside = near.startswith("..") or near == os.curdir  # "." alone would say nothing
    return data if outside else dataclasses.replace(data, name=near)


def _processes(options: argparse.Namespace) -> contextlib.AbstractContextManager[Processes]:
    """Returns the processes that train together, from the options of the command line."""
    several = (options.coordinator, options.process_id, options.num_processes)
    if options.distribute != "jax" and any(value is not None for value in several):
        raise ValueError("--coordinator, --process-id, and --num-processes require --distribute jax.")
    if options.distribute != "mirrored" and options.devices:
        raise ValueError("--devices requires --distribute mirrored.")
    if options.distribute == "jax":
        return join(*several)
    if options.distribute == "mirrored":
        return mirrored(options.devices)
    return contextlib.nullcontext(ALONE)


def _train(
    arguments: dict[str, Any],
    recipe: Recipe,
    data: Data,
    folder: pathlib.Path,
    processes: Processes,
    options: argparse.Namespace,
) -> TrainingResult:
    keras.config.set_dtype_policy(arguments["precision"])
    keras.utils.set_random_seed(arguments["seed"])
    model = _model(arguments, data)
    with progress_bars() as bars:
        shown = [_Progress(bars, recipe, folder), *_tensorboard(options, folder)] if processes.writes else []
        return train(
            model,
            data,
            recipe,
            folder,
            seed=arguments["seed"],
            resume=bool(options.resume),
            patience=options.patience,
            save_every=60.0 * options.save_every,
            threads=options.threads,
            verbose=0,
            callbacks=shown,
            notes={"arguments": arguments},
            processes=processes,
        )


def _arguments(options: argparse.Namespace) -> tuple[dict[str, Any], pathlib.Path]:
    """Returns the settings that determine the result, as given or as kept by the run to resume, and the folder."""
    given = {name: getattr(options, name) for name in ("model", "data", *DEFAULTS)}
    given = {name: _lasting(name, value) for name, value in given.items() if value is not None}
    if not options.resume:
        missing = [name for name in ("model", "data", "out") if getattr(options, name) is None]
        if missing:
            raise ValueError(f"A new run needs --{', --'.join(missing)}; to resume one, pass --resume FOLDER.")
        return {**DEFAULTS, **given}, pathlib.Path(options.out)
    if options.out:
        raise ValueError("--resume already names the run's folder; leave out --out.")
    kept = read_run(options.resume).get("arguments")
    if kept is None:
        raise ValueError(
            f"The run in {options.resume!r} was started by a program; resume it with that program, not with this "
            "command."
        )
    missing = sorted({"model", "data", *DEFAULTS} - set(kept))
    if missing:
        file = os.fspath(pathlib.Path(options.resume, RUN_FILE))
        raise ValueError(
            f"{file!r} is damaged: its arguments lack {', '.join(missing)}. Restore a copy of it, or start a new run "
            "in another folder."
        )
    other = [
        f"--{name.replace('_', '-')} was {kept[name]}, is now {value}"
        for name, value in given.items()
        if kept[name] != value and name != "data"  # the data may have moved; its fingerprint is compared
    ]
    if other:
        raise ValueError(
            f"A resumed run keeps its settings: {'; '.join(other)}. Leave them out, or start a new run with --out."
        )
    return kept, pathlib.Path(options.resume)


def _lasting(name: str, value: Any) -> Any:
    """Returns an argument that is valid in every working folder: a path becomes absolute, a name stays."""
    is_path = (
        (name == "data" and os.path.exists(value))  # a folder goes before a dataset of the same name
        or (name == "weights" and os.path.isfile(value))
        or (name == "model" and value.endswith(".keras") and os.path.isfile(value))
    )
    return os.path.abspath(value) if is_path else value


def _recipe(arguments: dict[str, Any]) -> Recipe:
    recipe = get_recipe(arguments["recipe"])
    if arguments["batch_size"]:
        recipe = recipe.with_batch_size(arguments["batch_size"])
    return recipe.with_epochs(arguments["epochs"]) if arguments["epochs"] else recipe


def _check_network(arguments: dict[str, Any], recipe: Recipe) -> None:
    name, weights = arguments["model"], arguments["weights"]
    if name.endswith(".keras"):
        _check_file(arguments)
        return
    check_name(name)
    named = None if is_layout(name) else resolve(name)
    has_weights = named is None or named.weights is not None
    if has_weights and weights:
        raise ValueError(f"{name!r} already names weights; leave out --weights.")
    if arguments["plain"] and arguments["reduction"]:
        raise ValueError("--plain leaves out the SE blocks that --reduction changes; pass only one of them.")
    if named is None:
        read_layout(name)
    elif has_weights or (weights and not os.path.isfile(weights)):
        named = resolve(name, weights)
        find_record(named.model, named.weights or "")
    if not has_weights and not weights and recipe.phases[0].trainable == "head":
        raise ValueError(
            f"Recipe {recipe.name!r} first trains the classifier alone, which needs a trained network; "
            f"{name!r} would start from random weights. Name weights with --weights (a tag of `se-keras list "
            "--weights`, or a file), or train from scratch with --recipe imagenet_modern or cifar."
        )


def _check_file(arguments: dict[str, Any]) -> None:
    check_file(arguments["model"])
    building = ("weights", "plain", "reduction", "size", "precision")
    given = [f"--{name}" for name in building if arguments[name] != DEFAULTS[name]]
    if given:
        raise ValueError(
            f"A .keras file is trained as it is: {', '.join(given)} cannot be applied to {arguments['model']!r}."
        )


def _model(arguments: dict[str, Any], data: Data) -> keras.Model:
    name = arguments["model"]
    if name.endswith(".keras"):
        return load_file(name)
    options: dict[str, Any] = {"classes": len(data.train.class_names), "weights": arguments["weights"]}
    if arguments["size"]:
        options["input_shape"] = (arguments["size"], arguments["size"], 3)
    if arguments["plain"]:
        options["se"] = None
    elif arguments["reduction"]:
        options["se"] = SEConfig(reduction=arguments["reduction"])
    return create_model(name, **options)


def _report(data: Data, folder: pathlib.Path) -> None:
    counts = f"{len(data.train):,} images for training, {len(data.validation):,} for validation"
    progress_console.print(f"{data.name}: {counts}, {len(data.train.class_names)} classes")
    if data.broken:
        listing = folder / BROKEN_FILE
        try:
            with replacing(listing, overwrite=True, kind=_BROKEN) as temporary:
                lines = (f"{visible(file)}\t{visible(reason)}\n" for file, reason in data.broken)
                temporary.write_text("".join(lines), "utf-8")
        except FileExistsError as error:  # a file that is not ours is no reason not to train
            progress_console.print(f"{left_out(data.broken)} They are not listed: {error}")
        else:
            progress_console.print(f"left out: {len(data.broken)} files that cannot be read, listed in {listing}")


def _hint(images: int, recipe: Recipe) -> None:
    """Prints how to train for longer if the recipe's epochs, meant for more images, amount to few steps."""
    steps = max(1, images // recipe.batch_size)
    if steps * recipe.epochs < FEW_STEPS:
        progress_console.print(
            f"{recipe.epochs} epochs of {steps} {'step' if steps == 1 else 'steps'} are little training for so few "
            f"images; --epochs {-(-FEW_STEPS // steps)} takes longer, but is probably more accurate"
        )


def _tensorboard(options: argparse.Namespace, folder: pathlib.Path) -> list[keras.callbacks.Callback]:
    if not options.tensorboard:
        return []
    return [keras.callbacks.TensorBoard(os.fspath(folder / "tensorboard"))]


class _Progress(keras.callbacks.Callback):
    """A callback that shows a bar for the epoch, and a line for each completed epoch."""

    def __init__(self, bars: Progress, recipe: Recipe, folder: pathlib.Path) -> None:
        super().__init__()
        self.bars, self.epochs, self.log = bars, recipe.epochs, folder / LOG_FILE
        self.task = bars.add_task("Starting", total=None)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        done = len(self.log.read_text("utf-8").splitlines()) - 1 if self.log.exists() else 0
        self.name = f"epoch {done + 1} of {self.epochs}"
        self.bars.reset(self.task, total=self.params["steps"], description=self.name)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        logs = logs or {}
        numbers = f"loss {logs.get('loss', 0):.3f}, accuracy {logs.get('accuracy', 0):.1%}"
        self.bars.update(self.task, completed=batch + 1, description=f"{self.name}: {numbers}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = logs or {}
        self.bars.console.print(
            f"{self.name}: loss {logs['loss']:.4f}, accuracy {logs['accuracy']:.2%}; "
            f"validation loss {logs['val_loss']:.4f}, accuracy {logs['val_accuracy']:.2%}",
        )


def _summary(
    history: tuple[dict[str, float], ...], data: Data, folder: pathlib.Path, options: argparse.Namespace
) -> int:
    result = evaluate(load_file(os.fspath(folder / FINAL_FILE)), data.validation)
    write_metrics(result, folder / METRICS_FILE)
    write_class_names(folder / LABELS_FILE, data.train.class_names)
    written = [FINAL_FILE, BEST_FILE, LOG_FILE, METRICS_FILE, LABELS_FILE]
    if importlib.util.find_spec("matplotlib"):
        name = read_run(folder)["model"]["name"]
        draw_curves({name: history}, folder / CURVES_FILE, title=f"{name} on {data.name}")
        draw_confusion(result, folder / CONFUSION_FILE, title=f"{name} on {data.name}: {result.images:,} images")
        written += [CURVES_FILE, CONFUSION_FILE]
    if options.json:
        print_json({"folder": os.fspath(folder), "history": history, **result.as_dict()})
        return 0
    best = max(history, key=lambda row: row["val_accuracy"])
    epochs = f"{len(history)} {'epoch' if len(history) == 1 else 'epochs'}"
    console.print(
        f"{folder}: accuracy {result.accuracy:.2%} on {result.images:,} validation images after {epochs} "
        f"(best {best['val_accuracy']:.2%} after {best['epoch']})",
    )
    console.print(f"written: {', '.join(written)}")
    return 0
