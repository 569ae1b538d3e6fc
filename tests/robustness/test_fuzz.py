"""Damaged files of every kind: a reader works, or raises one of the documented errors, in one line that names the file.

The damage is random but the same in every run. `SE_KERAS_FUZZ=20` makes it twenty times as much.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
import random
import struct
import types
import warnings
import zipfile
from collections.abc import Callable

import keras
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import se_keras
from se_keras import export
from se_keras.analysis import Gates
from se_keras.class_names_file import read_class_names
from se_keras.errors import WeightsMismatchError
from se_keras.export.structure import structure_of
from se_keras.images.record import Preprocessing
from se_keras.model_files import read_model
from se_keras.prediction import job
from se_keras.training import open_data
from se_keras.training.run_folder import RUN_FILE, read_run
from se_keras.training.state import Progress, read_progress, restore_state, save_state
from se_keras.weights.caffe import net_parameter_class
from se_keras.weights.keras_files import load_keras_file, stated_by
from se_keras.weights.readers import SafetensorsFile, read_tensors

EXPECTED = (ValueError, OSError, ImportError)
TRIALS = 24 * int(os.environ.get("SE_KERAS_FUZZ", "1"))


# Damage: of bytes anywhere, of the members of a zip archive, of the values in JSON.


def of_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flips, cuts, swaps, zeros, or lengthens."""
    data = bytearray(content)
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    kind = chance.choice(["flip", "cut", "front", "swap", "zeros", "twice", "without", "huge"])
    if kind == "flip":
        for _ in range(chance.choice([1, 1, 4, 40])):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == "cut":
        del data[start:]
    elif kind == "front":
        del data[: min(start, 64)]
    elif kind == "swap":
        half = (end - start) // 2
        data[start : start + half], data[end - half : end] = data[end - half : end], data[start : start + half]
    elif kind == "zeros":
        data[start:end] = bytes(end - start)
    elif kind == "twice":
        data[start:start] = data[start:end]
    elif kind == "without":
        del data[start:end]
    else:
        place = chance.randrange(min(len(data), 256))
        data[place : place + 4] = b"\xff\xff\xff\x7f"
    return bytes(data)


VALUES = (None, True, -1, 0, 10**30, 0.5, float("nan"), "", "x" * 300, "\ud800", "../../x", [], {}, [[]], {"a": 1})


def of_json(content: bytes, chance: random.Random) -> bytes:
    """Replaces or removes one value anywhere."""
    whole = {"": json.loads(content)}
    parent, key = whole, ""
    while isinstance(parent[key], dict | list) and parent[key] and chance.random() < 0.8:
        parent = parent[key]
        key = chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    if chance.random() < 0.3 and parent is not whole:
        del parent[key]
    else:
        parent[key] = chance.choice(VALUES)
    return json.dumps(whole[""]).encode()


def of_archive(content: bytes, chance: random.Random) -> bytes:
    """Damages, renames or leaves out one member; the checksums are right again."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        chosen = chance.choice(old.namelist())
        for name in old.namelist():
            data = old.read(name)
            kind = chance.choice(["damage", "damage", "damage", "rename", "leave out"]) if name == chosen else ""
            if kind == "damage":
                data = chance.choice([of_json, of_bytes] if name.endswith(".json") else [of_bytes])(data, chance)
            if kind != "leave out":
                new.writestr("other" if kind == "rename" else name, data)
    return target.getvalue()


def of_safetensors(content: bytes, chance: random.Random) -> bytes:
    """Changes the header, whose length is right again."""
    length = int.from_bytes(content[:8], "little")
    header = chance.choice([of_json, of_bytes])(content[8 : 8 + length], chance)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


# The files and their readers.


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of file.

    Args:
        name: Of the file.
        make: Writes a whole one.
        read: Reads it.
        damages: What may happen to it.
    """

    name: str
    make: Callable[[pathlib.Path], object]
    read: Callable[[pathlib.Path], object]
    damages: tuple[Callable[[bytes, random.Random], bytes], ...] = (of_bytes,)


def tiny():
    images = keras.Input((8, 8, 3), name="images")
    x = se_keras.layers.ImagePreprocessing(mean=(0.5,) * 3, std=(0.2,) * 3)(images)
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = se_keras.SqueezeExcite(2, name="se")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(2, activation="softmax", name="predictions")(x), name="tiny")


MODEL = types.SimpleNamespace()  # the model of all cases, made by the fixture


def read_keras(path):
    stated_by(path)
    read_model(path)
    load_keras_file(MODEL.model, path)


def read_safetensors(path):
    opened = SafetensorsFile(path)
    opened.stated  # noqa: B018
    tensors = read_tensors(path)
    return [tensors[name] for name in tensors]


def read_state(path):
    read_progress(path)
    restore_state(path, MODEL.model, metrics=True)


def make_run(path):
    path.write_text(json.dumps({"facts": {"arguments": {"data": "x", "seed": 0}, "model": {"name": "tiny"}}}))


def read_run_file(path):
    path.rename(path.with_name(RUN_FILE))
    read_run(path.parent)


def make_manifest(path):
    settings = {"model": "tiny", "folder": "photos", "files": 3, "files_sha256": "0" * 64}
    path.write_text(json.dumps(settings))


def read_manifest(path):
    path.rename(path.with_name(job.MANIFEST))
    job._manifest(path.parent)


def make_arrays(path):
    images, labels = np.zeros((4, 8, 8, 3), "uint8"), np.array([0, 1, 0, 1])
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels, class_names=["a", "b"])


def make_gates(path):
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")
    data = [(images, np.array([0, 1, 0, 1]))]
    se_keras.analysis.collect_gates(MODEL.model, data, class_names=["a", "b"], title="noise").save(path)


def make_caffe(path):
    network = net_parameter_class()()
    layer = network.layer.add(name="conv")
    blob = layer.blobs.add()
    blob.data.extend(range(6))
    blob.shape.dim.extend((2, 3))
    path.write_bytes(network.SerializeToString())


def make_pth(path):
    import torch

    torch.save({"state_dict": {"module.a.weight": torch.ones(3), "module.b.weight": torch.ones(2, 2)}}, path)


def make_image(path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), "uint8")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)


def read_image(path):
    return se_keras.preprocess(path, Preprocessing(size=16))


def make_saved_model(path):
    export.saved_model(MODEL.model, path.parent / "saved")
    (path.parent / "saved" / path.name).replace(path)


def read_names(path):
    return read_class_names(path)


CASES = [
    Case("m.keras", lambda path: MODEL.model.save(path), read_keras, (of_bytes, of_archive, of_archive)),
    Case("m.weights.h5", lambda path: MODEL.model.save_weights(path), lambda path: (
        load_keras_file(MODEL.model, path)
    )),
    Case("m.safetensors", lambda path: se_keras.save_safetensors(MODEL.model, path), read_safetensors, (
        of_bytes, of_safetensors, of_safetensors
    )),
    Case("foreign.safetensors", lambda path: safetensors.numpy.save_file(
        {"module.a": np.ones(3, "float32"), "module.b": np.ones(2, "float16")}, path
    ), read_safetensors, (of_bytes, of_safetensors)),
    Case("m.pth", make_pth, read_tensors, (of_bytes, of_archive)),
    Case("m.caffemodel", make_caffe, read_tensors),
    Case("m.tflite", lambda path: export.tflite(MODEL.model, path), structure_of),
    Case("m.onnx", lambda path: export.onnx(MODEL.model, path), structure_of),
    Case("saved_model.pb", make_saved_model, lambda path: structure_of(path.parent)),
    Case("data.npz", make_arrays, open_data, (of_bytes, of_archive)),
    Case("gates.npz", make_gates, Gates.load, (of_bytes, of_archive)),
    Case("state.safetensors", lambda path: save_state(path, MODEL.model, Progress()), read_state, (
        of_bytes, of_safetensors, of_safetensors
    )),
    Case("given.json", make_run, read_run_file, (of_bytes, of_json, of_json)),
    Case("manifest.json", make_manifest, read_manifest, (of_bytes, of_json, of_json)),
    Case("labels.txt", lambda path: path.write_text("dog\nnaïve\n\"a\\nb\"\n", "utf-8"), read_names),
    *(Case(f"photo{ending}", make_image, read_image) for ending in (".jpg", ".png", ".tiff", ".webp")),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _model():
    MODEL.model = tiny()
    MODEL.model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    MODEL.model.train_on_batch(np.zeros((2, 8, 8, 3), "float32"), np.array([0, 1]))
    yield
    vars(MODEL).clear()


def outcome(case, path):
    """What is wrong with how a reader takes a file; None if nothing is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.read(path)
    except EXPECTED as error:
        text = str(error)
        named = path.name in text or path.parent.name in text
        one_line = "\n" not in text or isinstance(error, WeightsMismatchError)
        return None if named and one_line else f"{type(error).__name__} does not name the file in one line: {text}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_damaged_file_is_read_or_named(case, tmp_path):
    if case.name == "m.pth":
        pytest.importorskip("torch")
    whole = tmp_path / case.name
    case.make(whole)
    content = whole.read_bytes()
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / case.name).write_bytes(content)
    assert outcome(case, tmp_path / "whole" / case.name) is None
    faults = {}
    for seed in range(TRIALS):
        chance = random.Random(seed)
        folder = tmp_path / f"trial-{seed}"
        folder.mkdir()
        path = folder / case.name
        path.write_bytes(chance.choice(case.damages)(content, chance))
        fault = outcome(case, path)
        if fault:
            faults[seed] = fault
    assert not faults, "\n".join(f"{seed}: {fault}" for seed, fault in faults.items())
