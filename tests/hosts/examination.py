"""What becomes of a network that gets SE blocks, as data: every check of it gives a figure, or the reason why not."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from rewriting import deployment, randomized

from se_keras import SEConfig, export, insert_squeeze_excite
from se_keras.analysis import collect_gates
from se_keras.surgery import find_positions, prune_gates, pruning_curve

BATCH = 2
CLASSES = 8  # integers that are drawn for an input, such as the numbers of words
SE = SEConfig(reduction=4, gate_init="identity")
ROUNDING = 1e-4  # of the greatest answer
FORMATS = {
    "saved_model": (export.saved_model, "model"),
    "tflite": (export.tflite, "model.tflite"),
    "onnx": (export.onnx, "model.onnx"),
    "openvino": (export.openvino, "model.xml"),
}


class Subject:
    """A network, inputs for it, and what has become of it so far."""

    def __init__(self, build: Callable[[], keras.Model]) -> None:
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        with quiet():
            self.model = randomized(build())
        structure = getattr(self.model, "_inputs_struct", self.model.inputs[0])
        self.inputs = keras.tree.map_structure(drawn, structure)
        self.current = self.model

    @functools.cached_property
    def batches(self) -> list[tuple[Any]]:
        return [(self.inputs,)]

    def answers(self, model: keras.Model) -> list[np.ndarray]:
        outputs = keras.tree.flatten(model(self.inputs, training=False))
        return [keras.ops.convert_to_numpy(x).astype("float64") for x in outputs]


def drawn(tensor: Any) -> np.ndarray:
    """A batch for one input: small integers, pixels, or numbers around 0."""
    rng, shape = np.random.default_rng(0), (BATCH, *tensor.shape[1:])
    if "int" in tensor.dtype:
        return rng.integers(0, CLASSES, shape).astype(tensor.dtype)
    values = rng.uniform(0, 255, shape) if len(shape) > 3 else rng.normal(size=shape)
    return values.astype(tensor.dtype)


def compared(ours: list[np.ndarray], theirs: list[np.ndarray], tolerance: float) -> str:
    pairs = list(zip(ours, theirs, strict=True))
    return "equal" if all(np.abs(a - b).max() <= tolerance * np.abs(b).max() for a, b in pairs) else "answers differ"


def places(subject: Subject) -> dict[str, Any]:
    found = find_positions(subject.model)
    names = [position.layer for position in found if not position.obstacle]
    ends = {"first": names[0], "last": names[-1]} if names else {}
    return {"count": len(names), **ends, "taken": len(found) - len(names)}


def insert(subject: Subject) -> str:
    changed = insert_squeeze_excite(subject.model, se=SE)
    result = compared(subject.answers(changed), subject.answers(subject.model), tolerance=0)
    subject.current = changed
    return result


def kind(subject: Subject) -> str:
    """Whether a model of a class of its own, which may hold more than layers, stays one."""
    old, new = type(subject.model), type(subject.current)
    return "kept" if old in (new, keras.Sequential) else "lost"


def train(subject: Subject) -> str:
    """One step on random targets, and another if blocks stay: a classifier of zeros passes no gradient on at first.

    The blocks are those that insertion adds.
    """
    model, old = subject.current, {layer.name for layer in subject.model._flatten_layers()}
    blocks = [layer for layer in model._flatten_layers() if layer.name not in old and hasattr(layer, "gates")]
    before = [block.get_weights() for block in blocks]
    targets = keras.tree.map_structure(noise, model(subject.inputs, training=False))
    model.compile(keras.optimizers.SGD(0.01), loss=keras.tree.map_structure(lambda _: projected, targets))
    for moved in ("all moved", "all moved in the second step"):
        model.fit(subject.inputs, targets, batch_size=BATCH, verbose=0)
        still = [block.name for block, values in zip(blocks, before, strict=True) if same(values, block.get_weights())]
        if not still:
            return moved if blocks else "no new block"
    return f"{len(still)} of {len(blocks)} stay"


def noise(x: Any) -> np.ndarray:
    return np.random.default_rng(0).normal(size=x.shape).astype("float32")


@keras.saving.register_keras_serializable("hosts")
def projected(y_true: Any, y_pred: Any) -> Any:
    """A loss whose gradient is nowhere 0, whatever an output is."""
    return keras.ops.mean(keras.ops.cast(y_true, y_pred.dtype) * y_pred)


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def save(subject: Subject, folder: pathlib.Path) -> str:
    try:
        return reloaded(subject, subject.current, folder)
    except Exception:
        if outcome(lambda: reloaded(subject, subject.model, folder)) != "equal":
            return "nor is it loaded without blocks"
        raise


def reloaded(subject: Subject, model: keras.Model, folder: pathlib.Path) -> str:
    model.save(folder / "model.keras")
    # Not all packages register their layers with Keras, which their own classes of models do without.
    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers(include_self=False)}
    theirs = {name: one for name, one in classes.items() if not one.__module__.startswith("keras.")}
    loaded = keras.saving.load_model(folder / "model.keras", custom_objects=theirs)
    return compared(subject.answers(loaded), subject.answers(model), tolerance=0)


def deploy(subject: Subject) -> dict[str, Any]:
    deployed, changes = deployment(subject.current)
    answers = compared(subject.answers(deployed), subject.answers(subject.current), ROUNDING)
    return {"answers": answers, **counts(change.action for change in changes)}


def prune(subject: Subject) -> dict[str, Any]:
    """Nothing changes with a bound of 0; the counts are of a bound that takes every block for a constant."""
    (report,) = pruning_curve(subject.current, subject.batches, bounds=[np.inf], timed_calls=0, verbose=0)
    same_answers = prune_gates(subject.current, subject.batches, bound=0.0, verbose=0)
    answers = compared(subject.answers(same_answers), subject.answers(subject.current), ROUNDING)
    return {"answers": answers, **counts(change.action for change in report.changes)}


def counts(actions: Any) -> dict[str, int]:
    return dict(sorted(collections.Counter(actions).items()))


def own_gates(subject: Subject) -> int:
    return read_gates(subject.model, subject.batches)


def all_gates(subject: Subject) -> int:
    return read_gates(subject.current, subject.batches)


def read_gates(model: keras.Model, batches: Any) -> int:
    try:
        return len(collect_gates(model, batches, verbose=0).blocks)
    except ValueError as error:
        if "has none" in str(error):
            return 0
        raise


def exported(subject: Subject, folder: pathlib.Path, form: str) -> str:
    write, name = FORMATS[form]
    path = write(subject.current, folder / name, verbose=0)
    report = export.verify(path, subject.current, data=subject.inputs, gpu_images=0, repeats=0, verbose=0)
    return "verified" if report.passed else "answers differ"


CHECKS = {
    "places": places,
    "insert": insert,
    "class": kind,
    "train": train,
    "save": save,
    "deploy": deploy,
    "prune": prune,
    "own_gates": own_gates,
    "all_gates": all_gates,
}


def examine(subject: Subject, folder: pathlib.Path) -> dict[str, Any]:
    """Returns the row of the table for one network: from each check to what it gives."""
    with eager():
        return {
            name: outcome(functools.partial(check, subject, *((folder,) if check is save else ())))
            for name, check in CHECKS.items()
        }


def examine_exports(subject: Subject, folder: pathlib.Path, formats: Any = tuple(FORMATS)) -> dict[str, str]:
    """Returns what becomes of each export of the network with its blocks: "verified", or the reason why not."""
    if subject.current is subject.model:
        outcome(functools.partial(insert, subject))
    return {form: outcome(functools.partial(exported, subject, folder, form)) for form in formats}


def outcome(check: Callable[[], Any]) -> Any:
    """What a check returns, or its error in one line, without what differs from machine to machine."""
    try:
        with quiet():
            return check()
    except Exception as error:  # of whatever package: it is what the table tells
        return f"{type(error).__name__}: {first_line(str(error))}"


def first_line(message: str) -> str:
    cause = message.rpartition("Exception encountered: ")[2]  # of Keras, which repeats a config before it
    line = next((line for line in cause.splitlines() if line.strip()), "")
    line = re.sub(r"\x1b\[[0-9;]*m|0x[0-9a-f]+", "", line)
    return re.sub(rf"{os.sep}\S*{os.sep}", "", line)[:120]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Other packages warn of what is nothing to do with this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Runs functions as they are: tracing them takes longer than running them once."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
