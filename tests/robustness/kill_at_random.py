"""Kills commands at random moments, runs each once more, and looks whether all is whole and nothing else changed.

    python tests/robustness/kill_at_random.py --kills 200 --seed 0 --results kills.json

Each attempt copies a folder of small models and images, starts a command in it, and sends SIGKILL at a moment drawn
evenly over the time that the command takes. The same command is then run to its end (a training goes on with --resume
where a run was begun). Afterwards every output must equal that of an undisturbed run, in its bytes where they are
always the same and else in its weights or answers, every other file of the folder must be as it was, and no temporary
file may be left.

The results are kept after each attempt, so that the same command goes on where it was stopped. Keras is imported once:
each command runs in a copy of this process, which computes nothing itself.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import pickle
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

import se_keras
import se_keras_cli
from se_keras import export
from se_keras.cli import convert, insert, predict, train  # noqa: F401  imported once, not in each copy
from se_keras.layers import ImagePreprocessing, SqueezeExcite
from se_keras.training.run_folder import RUN_FILE

IMAGES = 600  # of which `predict --input` makes three parts


@dataclasses.dataclass(frozen=True)
class Command:
    """A command to kill.

    Args:
        run: Runs it in the working folder; gives an exit code.
        outputs: Everything that it writes.
        again: What runs after the kill, if it is not the same.
    """

    run: Callable[[], int]
    outputs: tuple[str, ...]
    again: Callable[[], int] | None = None


def cli(*arguments: str) -> Callable[[], int]:
    """Returns a command line to run."""
    return lambda: se_keras_cli.main(list(arguments))


def exporting(write: Callable[..., Any], path: str, **options: Any) -> Callable[[], int]:
    """Returns an export to run; without the verification of the command line, which writes nothing."""

    def run() -> int:
        write(keras.models.load_model("model.keras", compile=False), path, overwrite=True, **options)
        return 0

    return run


def resuming() -> int:
    """Goes on with a training if one was begun, or begins it."""
    if os.path.exists(f"run/{RUN_FILE}"):
        return se_keras_cli.main(["train", "--resume", "run", "--save-every", "0.0001"])
    return se_keras_cli.main([*TRAIN])


TRAIN = ["train", "--model", "model.keras", "--data", "data.npz", "--recipe", "cifar", "--epochs", "3"]
TRAIN += ["--batch-size", "8", "--save-every", "0.0001", "--out", "run"]
PREDICT = ["predict", "--model", "model.keras", "--class-names", "labels.txt", "--input", "photos"]
CONVERT = ["convert", "source.safetensors", "--model", "se_resnet20", "--overwrite"]
COMMANDS = {
    "train": Command(cli(*TRAIN), ("run",), resuming),
    "predict": Command(cli(*PREDICT, "--output", "answers.csv"), ("answers.csv", "answers.broken.csv")),
    "export saved_model": Command(exporting(export.saved_model, "saved", class_names=["a", "b", "c"]), ("saved",)),
    "export tflite": Command(exporting(export.tflite, "m.tflite", class_names=["a", "b", "c"]), ("m.tflite", "m.json")),
    "export onnx": Command(exporting(export.onnx, "m.onnx"), ("m.onnx",)),
    "export openvino": Command(exporting(export.openvino, "m.xml"), ("m.xml", "m.bin")),
    "convert keras": Command(cli(*CONVERT, "--to", "c.keras"), ("c.keras",)),
    "convert h5": Command(cli(*CONVERT, "--to", "c.weights.h5"), ("c.weights.h5",)),
    "convert safetensors": Command(cli(*CONVERT, "--to", "c.safetensors"), ("c.safetensors",)),
    "insert": Command(cli("insert", "plain.keras", "--to", "se.keras", "--overwrite"), ("se.keras",)),
}


# Copies of this process.


def in_copy(act: Callable[[], Any], folder: pathlib.Path) -> tuple[int, int]:
    """Starts something in a copy of this process; gives its number and where its answer can be read."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        answer: Any = None
        try:
            os.close(reader)
            os.chdir(folder)
            log = os.open(folder.with_suffix(".log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            answer = act()
        except BaseException:
            answer = traceback.format_exc()
        finally:
            with contextlib.suppress(BaseException):
                os.write(writer, pickle.dumps(answer))
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(0)
    os.close(writer)
    return child, reader


def result_of(act: Callable[[], Any], folder: pathlib.Path) -> Any:
    """What something gives that runs in a copy of this process."""
    child, reader = in_copy(act, folder)
    with os.fdopen(reader, "rb") as stream:
        content = stream.read()
    os.waitpid(child, 0)
    return pickle.loads(content) if content else "ended without an answer"


def killed(act: Callable[[], Any], folder: pathlib.Path, seconds: float) -> bool:
    """Runs something in a copy of this process and kills it; gives whether it was still at work."""
    child, reader = in_copy(act, folder)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(reader)
    return os.WIFSIGNALED(status)


# What is compared.


def _datasets(file: Any) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with h5py.File(file, "r") as content:
        content.visititems(
            lambda name, item: found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def _keras_file(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        # Keras numbers what layers share by memory addresses, which are others in each process.
        config = re.sub(rb'"shared_object_id": \d+', b"", archive.read("config.json"))
        return config, _datasets(io.BytesIO(archive.read("model.weights.h5")))


def _log(path: pathlib.Path) -> Any:
    with open(path, newline="") as lines:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(lines)]


def _served(path: pathlib.Path) -> Any:
    import tensorflow as tf

    loaded = tf.saved_model.load(os.fspath(path.parent))
    return loaded.signatures["serving_default"](images=np.full((1, 16, 16, 3), 99, np.float32))["probabilities"].numpy()


def _onnx(path: pathlib.Path) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(None, {"images": np.full((1, 16, 16, 3), 99, np.float32)})[0].tobytes()


def _inserted(path: pathlib.Path) -> Any:
    model = keras.models.load_model(path, compile=False)  # its new blocks begin with random weights that change nothing
    return model.predict(np.full((1, 16, 16, 3), 99, np.float32), verbose=0).tobytes(), model.count_params()


READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    ".keras": _keras_file,
    "se.keras": _inserted,
    ".onnx": _onnx,
    ".h5": _datasets,
    ".safetensors": lambda path: {name: value.tobytes() for name, value in load_file(path).items()},
    "log.csv": _log,
    "run.json": lambda path: json.loads(path.read_text())["facts"],
    "saved_model.pb": lambda path: _served(path).tobytes(),
    "fingerprint.pb": lambda path: bool(path.read_bytes()),
    "variables.index": lambda path: bool(path.read_bytes()),
}


def content_of(path: pathlib.Path) -> Any:
    """What a file says, without what differs from run to run."""
    read = READERS.get(path.name) or READERS.get(path.suffix) or pathlib.Path.read_bytes
    return hashlib.sha256(pickle.dumps(read(path))).hexdigest()


def listing(folder: pathlib.Path) -> dict[str, str]:
    """The content of every file below a folder, and every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[path.relative_to(folder).as_posix()] = "folder" if path.is_dir() else content_of(path)
    return found


# Attempts.


def prepare(folder: pathlib.Path) -> None:
    """Fills a folder with small models and images."""
    keras.utils.set_random_seed(0)
    for name, blocks in (("model.keras", 1), ("plain.keras", 0)):
        inputs = keras.Input((16, 16, 3))
        x = ImagePreprocessing(size=16, mean=(0.5,) * 3, std=(0.25,) * 3)(inputs)
        for number in range(2):
            y = keras.layers.Conv2D(8, 3, padding="same", name=f"conv{number}")(x)
            y = keras.layers.BatchNormalization(name=f"norm{number}")(y)
            y = SqueezeExcite(2, name=f"se{number}")(y) if blocks else y
            x = keras.layers.ReLU(name=f"relu{number}")(keras.layers.Add(name=f"add{number}")([x, y]) if number else y)
        x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
        keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="logits")(x), name="tiny").save(
            folder / name
        )
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, 16, 16, 3), np.uint8)
    (folder / "photos").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"photos/{number:03}.png")
    (folder / "photos/100.png").write_bytes(b"broken")
    (folder / "labels.txt").write_text("a\nb\nc\n")
    labels = np.arange(IMAGES) % 3
    np.savez(folder / "data.npz", x_train=pixels[:32], y_train=labels[:32], x_test=pixels[32:47], y_test=labels[32:47])
    se_keras.save_safetensors(se_keras.SEResNet20(), folder / "source.safetensors")
    (folder / "notes.txt").write_text("not to be touched")


def make_old(folder: pathlib.Path) -> None:
    """Writes outputs of an earlier time, with other weights, for the commands that replace."""
    model = keras.models.load_model(folder / "model.keras", compile=False)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    export.saved_model(model, folder / "saved")
    export.tflite(model, folder / "m.tflite")
    export.onnx(model, folder / "m.onnx")
    export.openvino(model, folder / "m.xml")
    for name in ("c.keras", "se.keras"):
        model.save(folder / name)
    model.save_weights(folder / "c.weights.h5")
    save_file({"a": np.zeros(3)}, folder / "c.safetensors")


@dataclasses.dataclass(frozen=True)
class Reference:
    """An undisturbed run: the whole folder afterwards, and how long it took."""

    after: dict[str, str]
    seconds: float


class Killing:
    """Everything that the attempts share."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.templates = folder, {"new": folder / "new", "old": folder / "old"}
        self.references: dict[tuple[str, str], Reference] = {}
        self.templates["new"].mkdir()
        self._checked(result_of(lambda: prepare(self.templates["new"]), self.templates["new"]))
        shutil.copytree(self.templates["new"], self.templates["old"])
        self._checked(result_of(lambda: make_old(self.templates["old"]), self.templates["old"]))

    @staticmethod
    def _checked(answer: Any) -> None:
        if answer:
            raise RuntimeError(answer)

    def _copy(self, start: str) -> pathlib.Path:
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        return pathlib.Path(shutil.copytree(self.templates[start], work))

    def reference(self, name: str, start: str) -> Reference:
        """An undisturbed run of a command."""
        if (name, start) not in self.references:
            work, begun = self._copy(start), time.perf_counter()
            answer = result_of(COMMANDS[name].run, work)
            seconds = time.perf_counter() - begun
            if answer != 0:
                raise RuntimeError(
                    f"{name} failed undisturbed: {answer}\n{work.with_suffix('.log').read_text()[-3000:]}"
                )
            self.references[name, start] = Reference(result_of(lambda: listing(work), work), seconds)
        return self.references[name, start]

    def attempt(self, name: str, start: str, share: float) -> dict[str, Any]:
        """Kills a command after a share of its time, runs it again, and compares.

        Returns:
            What was done and `fault`, which is "" if all is well.
        """
        reference, command = self.reference(name, start), COMMANDS[name]
        work = self._copy(start)
        was_at_work = killed(command.run, work, share * reference.seconds)
        left = sorted(path.relative_to(work).as_posix() for path in work.rglob(".*"))
        code = result_of(command.again or command.run, work)
        after = result_of(lambda: listing(work), work)
        result = {"command": name, "start": start, "share": share, "at_work": was_at_work, "left": left, "fault": ""}
        if after != reference.after:
            names = {*reference.after} | {*after} if isinstance(after, dict) else {str(after)}
            different = [n for n in sorted(names) if isinstance(after, str) or after.get(n) != reference.after.get(n)]
            result["fault"] = f"differs: {', '.join(different)[:600]} (exit code {code})"
        elif code != 0 and not (
            "already exists" in work.with_suffix(".log").read_text()[-3000:] and command.again is None
        ):
            result["fault"] = f"exit code {code}"
        return result


def run(kills: int, seed: int, results: pathlib.Path | None = None, commands: tuple[str, ...] = ()) -> list[dict]:
    """Kills commands and compares what is left.

    Args:
        kills: How many.
        seed: Of the moments.
        results: A JSON file to keep the results in, and to go on from.
        commands: Names of `COMMANDS`; default: all in turn.

    Returns:
        The result of each attempt.
    """
    done = json.loads(results.read_text()) if results and results.exists() else []
    names = commands or tuple(COMMANDS)
    with tempfile.TemporaryDirectory() as folder:
        killing = Killing(pathlib.Path(folder))
        for number in range(len(done), kills):
            chance = random.Random(seed * 1_000_003 + number)
            name = names[number % len(names)]
            start = "new" if name in ("train", "predict") else chance.choice(("new", "old"))
            done.append({"number": number, "seed": seed, **killing.attempt(name, start, chance.random())})
            if results:
                results.write_text(json.dumps(done, indent=1))
    return done


def summary(done: list[dict]) -> str:
    """The results in one line."""
    faults = [entry for entry in done if entry["fault"]]
    at_work = sum(entry["at_work"] for entry in done)
    left = sum(bool(entry["left"]) for entry in done)
    return (
        f"{len(done)} kills, {at_work} while the command was at work, {left} left something unfinished; "
        f"{len(faults)} were not whole and clean after one more run"
    )


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--commands", nargs="*", choices=COMMANDS, default=[])
    options = parser.parse_args()
    done = run(options.kills, options.seed, options.results, tuple(options.commands))
    for entry in done:
        if entry["fault"]:
            print(entry)
    print(summary(done))
    return int(any(entry["fault"] for entry in done))


if __name__ == "__main__":
    sys.exit(main())
