"""A training that is stopped goes on exactly where it was, and what goes wrong loses nothing."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import threading

import keras
import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import save_file

from se_keras.errors import InUseError
from se_keras.layers import BatchNormalization, ImagePreprocessing, SqueezeExcite
from se_keras.training import state
from se_keras.training.augment import Mixup, PadAndCrop, RandomFlip
from se_keras.training.callbacks import TrainingDivergedError
from se_keras.training.loop import train
from se_keras.training.recipes import Phase, Recipe
from se_keras.training.run_folder import check_new, claimed, read_run, versions
from se_keras.training.sources import ArraySource, Data, load_sample, open_data

pytestmark = pytest.mark.filterwarnings("ignore:.*shuffle=True.*:UserWarning")
BATCH, STEPS = 16, 6


@pytest.fixture(scope="module")
def data():
    sample = load_sample()
    train_part = ArraySource(sample.x_train[:100], sample.y_train[:100], sample.class_names)
    return Data("sample", train_part, ArraySource(sample.x_test[:40], sample.y_test[:40], sample.class_names))


def tiny_model(classes=10, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((32, 32, 3))
    x = ImagePreprocessing(size=32, mean=(0.5,) * 3, std=(0.25,) * 3)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=4, name="conv")(x)
    x = SqueezeExcite(2, name="se")(BatchNormalization(name="bn")(x))
    x = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax", name="logits")(x), name="tiny")


def recipe(epochs=3, **changes):
    made = Recipe(
        name="test",
        phases=(Phase(epochs=epochs, learning_rate=0.1, warmup_epochs=0.5),),
        batch_size=BATCH,
        weight_decay=1e-3,
        transforms=(PadAndCrop(), RandomFlip()),
        source="these tests",
    )
    return dataclasses.replace(made, **changes)


class At(keras.callbacks.Callback):
    """Does something after so many steps."""

    def __init__(self, step, action):
        super().__init__()
        self.left, self.action = step, action

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.action(self.model)


def interrupt(model):
    signal.raise_signal(signal.SIGINT)


def weights_of(model):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def log_of(folder):
    with open(folder / "log.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("changes", "stop_after"),
    [
        pytest.param({}, 2, marks=pytest.mark.slow),
        pytest.param({"average": 0.9, "batch_transforms": (Mixup(),)}, STEPS + 3, marks=pytest.mark.slow),
        pytest.param({"optimizer": "adamw", "clip_norm": 1.0}, STEPS - 1, marks=pytest.mark.slow),
        (
            {
                "phases": (
                    Phase(epochs=1, learning_rate=0.1, trainable="head"),
                    Phase(epochs=2, learning_rate=0.01, trainable="without_norms"),
                )
            },
            STEPS + 2,
        ),
    ],
    ids=["sgd", "averaged weights and mixup", "adamw", "two phases"],
)
def test_interrupted_and_resumed_ends_with_the_same_bits(changes, stop_after, data, tmp_path):
    whole, parts = tiny_model(), tiny_model()
    plan = recipe(**changes)
    expected = train(whole, data, plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(parts, data, plan, tmp_path / "parts", callbacks=[At(stop_after, interrupt)])
    again = tiny_model()
    found = train(again, data, plan, tmp_path / "parts", resume=True)
    for a, b in zip(weights_of(whole), weights_of(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")
    assert found.best == expected.best
    assert not list((tmp_path / "parts").glob(".*"))  # no temporary files


def test_the_seed_decides_dropout_and_nothing_of_the_program(data, tmp_path):
    start = tiny_model().get_weights()
    losses = {}
    for name, seed in (("first", 0), ("same", 0), ("other", 1)):
        model = tiny_model(seed=len(losses))  # of which dropout would take its seed
        model.set_weights(start)
        before = np.random.get_state()[1].tolist()
        plan = recipe(1, transforms=())
        losses[name] = train(model, data, plan, tmp_path / name, seed=seed).history[0]["loss"]
        assert np.random.get_state()[1].tolist() == before
    assert losses["first"] == losses["same"] != losses["other"]


def test_leaves_a_folder_that_says_what_was_done(data, tmp_path):
    result = train(tiny_model(), data, recipe(2), tmp_path / "run", seed=7, notes={"note": "kept"})
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["facts"]["seed"] == 7
    assert facts["facts"]["note"] == "kept"
    assert facts["facts"]["recipe"]["transforms"][0] == {"type": "PadAndCrop", "padding": 4}
    assert facts["versions"]["keras"] == keras.__version__
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert len(log_of(tmp_path / "run")) == 2
    best = keras.models.load_model(tmp_path / "run/best.keras", compile=False)
    accuracy = np.mean(best.predict(load_sample().x_test[:40], verbose=0).argmax(1) == load_sample().y_test[:40])
    assert accuracy == pytest.approx(result.best)
    assert (tmp_path / "run/model.keras").is_file()


def test_resuming_a_finished_run_changes_nothing(data, tmp_path):
    done = tiny_model()
    train(done, data, recipe(1), tmp_path / "run")
    again = tiny_model()
    train(again, data, recipe(1), tmp_path / "run", resume=True)
    for a, b in zip(weights_of(done), weights_of(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_head_phase_trains_the_head_alone_and_norms_stay_as_they_were(data, tmp_path):
    model = tiny_model()
    before = {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights}
    train(model, data, recipe(phases=(Phase(epochs=1, learning_rate=0.1, trainable="head"),)), tmp_path / "head")
    changed = {w.path for w in model.weights if not np.array_equal(before[w.path], keras.ops.convert_to_numpy(w))}
    assert changed == {"logits/kernel", "logits/bias"}
    train(model, data, recipe(phases=(Phase(epochs=1, learning_rate=0.1, trainable="without_norms"),)), tmp_path / "b")
    for weight in model.get_layer("bn").weights:
        np.testing.assert_array_equal(before[weight.path], keras.ops.convert_to_numpy(weight))
    assert not np.array_equal(before["conv/kernel"], keras.ops.convert_to_numpy(model.get_layer("conv").kernel))


@pytest.mark.slow
def test_patience_stops_early(data, tmp_path):
    still = recipe(6, phases=(Phase(epochs=6, learning_rate=0.0, schedule="constant", trainable="without_norms"),))
    result = train(tiny_model(), data, still, tmp_path / "run", patience=2)
    assert len(result.history) == 3
    again = tiny_model()
    resumed = train(again, data, still, tmp_path / "run", patience=2, resume=True)
    assert resumed.history == result.history
    longer = train(tiny_model(), data, still, tmp_path / "run", patience=4, resume=True)
    assert len(longer.history) == 5


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(data, tmp_path):
    def spoil(model):
        model.get_layer("conv").kernel.assign(np.full((3, 3, 3, 8), np.nan))

    with pytest.raises(TrainingDivergedError, match=r"became nan in step 3 of epoch 2.*lower learning rate"):
        train(tiny_model(), data, recipe(), tmp_path / "run", callbacks=[At(STEPS + 2, spoil)])
    assert state.read_progress(tmp_path / "run/state.safetensors").epoch == 1
    result = train(tiny_model(), data, recipe(), tmp_path / "run", resume=True)
    assert len(result.history) == 3


def test_a_full_disk_while_saving_leaves_the_state_before(data, tmp_path, monkeypatch):
    written = []

    def full(arrays, path, metadata):
        written.append(path)
        if len(written) == 2:
            path.write_bytes(b"half a file")
            raise SafetensorError("No space left on device (os error 28)")
        save_file(arrays, path, metadata=metadata)

    save_file = state.save_file
    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(
        OSError, match=r"state.safetensors' could not be written: No space left.*Make room and.*unchanged"
    ):
        train(tiny_model(), data, recipe(), tmp_path / "run")
    monkeypatch.undo()
    assert state.read_progress(tmp_path / "run/state.safetensors").epoch == 1
    assert len(train(tiny_model(), data, recipe(), tmp_path / "run", resume=True).history) == 3


def test_a_full_disk_at_the_first_state_claims_no_earlier_one(data, tmp_path, monkeypatch):
    def full(arrays, path, metadata):
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(OSError, match=r"state.safetensors' could not be written: No space left.*nothing was there"):
        state.save_state(tmp_path / "state.safetensors", compiled(), state.Progress())
    assert list(tmp_path.iterdir()) == []


def compiled():
    model = tiny_model()
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_refuses_what_does_not_belong_to_the_run(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        train(tiny_model(), data, recipe(1), tmp_path / "run", resume=True)
    train(tiny_model(), data, recipe(1), tmp_path / "run")
    with pytest.raises(FileExistsError, match="already holds a run"):
        train(tiny_model(), data, recipe(1), tmp_path / "run")
    with pytest.raises(ValueError, match=r"recipe\.weight_decay was 0\.001, is now 0\.1"):
        train(tiny_model(), data, recipe(1, weight_decay=0.1), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="seed was 0, is now 1"):
        train(tiny_model(), data, recipe(1), tmp_path / "run", resume=True, seed=1)
    with pytest.raises(ValueError, match=r"has 3 classes.*has 10.*classes=10"):
        train(tiny_model(3), data, recipe(1), tmp_path / "other")


POSITIONS = {
    "no JSON": "{",
    "no object": "[]",
    "no number": '{"phase": "x", "epoch": 0, "step": 0, "history": []}',
    "no history": '{"phase": 0}',
    "other names": '{"phases": 0, "history": []}',
    "history of something else": '{"history": [1]}',
    "no validation": '{"history": [{"loss": 1.0}]}',
    "another recipe's": '{"phase": 7, "history": []}',
    "too far": '{"epoch": 2, "history": []}',
}


def test_a_damaged_state_is_named(data, tmp_path):
    train(tiny_model(), data, recipe(1), tmp_path / "run")
    file = tmp_path / "run/state.safetensors"
    contents = [b"", b"x" * 100, file.read_bytes()[:1000]]
    for position in POSITIONS.values():
        save_file({"0:a": np.zeros(1)}, file, metadata={"position": position})
        contents.append(file.read_bytes())
    save_file({"a": np.zeros(1)}, file, metadata={"position": '{"history": []}'})
    contents.append(file.read_bytes())
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"state.safetensors' is damaged or not the .* Restore a copy") as caught:
            train(tiny_model(), data, recipe(1), tmp_path / "run", resume=True)
        assert "\n" not in str(caught.value)
        assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"facts": []}', b"\xff"])
def test_a_damaged_description_of_a_run_is_named(content, tmp_path):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run.json' is damaged or does not .* Restore a copy of it, or") as caught:
        read_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_log_is_whole_though_the_end_came_between_state_and_log(data, tmp_path):
    train(tiny_model(), data, recipe(2), tmp_path / "run")
    expected = log_of(tmp_path / "run")
    (tmp_path / "run/log.csv").unlink()
    train(tiny_model(), data, recipe(2), tmp_path / "run", resume=True)
    assert log_of(tmp_path / "run") == expected


def test_a_second_process_in_one_folder_ends_at_once_and_harms_nothing(data, tmp_path):
    """Both a new run and one that is resumed; the first goes on and ends as alone."""
    errors = []

    def second(resume):
        try:
            train(tiny_model(), data, recipe(1), tmp_path / "run", resume=resume)
        except Exception as error:
            errors.append(error)

    def intrude(model):
        for resume in (False, True):
            thread = threading.Thread(target=second, args=(resume,))
            thread.start()
            thread.join()

    train(tiny_model(), data, recipe(1), tmp_path / "run", callbacks=[At(2, intrude)])
    assert [type(error) for error in errors] == [InUseError, InUseError]
    assert "Another process is at work on" in str(errors[0])
    alone = tiny_model()
    train(alone, data, recipe(1), tmp_path / "alone")
    found = keras.models.load_model(tmp_path / "run/model.keras", compile=False)
    for a, b in zip(weights_of(alone), weights_of(found), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(os.listdir(tmp_path / "run")) == sorted(os.listdir(tmp_path / "alone"))


def test_a_folder_is_claimed_once_per_process_and_cleared(tmp_path):
    with claimed(tmp_path / "run"), claimed(tmp_path / "run"):
        assert (tmp_path / "run/.lock").is_file()
    assert not (tmp_path / "run").exists()
    (tmp_path / "run/.best.keras.writing/new").mkdir(parents=True)
    (tmp_path / "run/.best.keras.writing/new/best.keras").write_bytes(b"half")
    (tmp_path / "run/.lock").touch()
    with claimed(tmp_path / "run"):
        assert os.listdir(tmp_path / "run") == [".lock"]
    (tmp_path / "run/labels.txt").write_bytes(b"\0 mine")
    with pytest.raises(FileExistsError, match=r"already holds a run \(it has 'labels.txt'\)"):
        check_new(tmp_path / "run")


@pytest.mark.slow
def test_more_images_in_a_batch_than_there_are(data, tmp_path):
    with pytest.raises(ValueError, match=r"A batch takes 128 images, but there are 100.*--batch-size"):
        train(tiny_model(), data, recipe(1, batch_size=128), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(tiny_model(), data, recipe(1), tmp_path / "run")


def test_what_failed_before_anything_was_trained_can_be_begun_anew(data, tmp_path):
    def fail(model):
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        train(tiny_model(), data, recipe(1), tmp_path / "run", callbacks=[At(1, fail)])
    assert (tmp_path / "run/run.json").is_file()
    train(tiny_model(), data, recipe(1, batch_size=10), tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["facts"]["recipe"]["batch_size"] == 10
    (tmp_path / "run/state.safetensors").unlink()
    with pytest.raises(FileExistsError, match=r"already holds a run.*--resume"):
        train(tiny_model(), data, recipe(1), tmp_path / "run")


def test_images_to_train_on_are_rgb(data, tmp_path):
    gray = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match=r"must take RGB images.*takes \(32, 32, 1\)"):
        train(gray, data, recipe(1), tmp_path / "run")


def nested_model():
    """The usual way of a body and a classifier of one's own, which has its preprocessing in front."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 8))
    x = keras.layers.Conv2D(8, 3, name="body_conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(BatchNormalization(name="body_bn")(x))
    body = keras.Model(inputs, x, name="body")
    images = keras.Input((32, 32, 3))
    x = ImagePreprocessing(size=32, mean=(0.5,) * 3, std=(0.25,) * 3)(images)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="conv")(x)
    return keras.Model(images, keras.layers.Dense(10, activation="softmax", name="logits")(body(x)), name="nested")


def changed_by(model, data, phase, folder):
    before = {weight.path: weight for weight in model.weights}
    values = {path: np.array(keras.ops.convert_to_numpy(weight)) for path, weight in before.items()}
    train(model, data, recipe(phases=(phase,)), folder)
    return {path for path, old in values.items() if not np.array_equal(old, keras.ops.convert_to_numpy(before[path]))}


@pytest.mark.slow
def test_phases_reach_into_models_inside_the_model(data, tmp_path):
    phase = Phase(epochs=1, learning_rate=0.1, trainable="without_norms")
    changed = changed_by(nested_model(), data, phase, tmp_path / "norms")
    assert {path.split("/")[-2] for path in changed} == {"conv", "body_conv", "logits"}
    phase = Phase(epochs=1, learning_rate=0.1, trainable="head")
    assert {path.split("/")[-2] for path in changed_by(nested_model(), data, phase, tmp_path / "head")} == {"logits"}


@pytest.mark.slow
def test_what_is_frozen_stays_frozen_and_the_flags_come_back(data, tmp_path):
    model = nested_model()
    model.get_layer("body").trainable = False
    changed = changed_by(model, data, Phase(epochs=1, learning_rate=0.1), tmp_path / "run")
    assert {path.split("/")[-2] for path in changed} == {"conv", "logits"}
    again = nested_model()
    changed_by(again, data, Phase(epochs=1, learning_rate=0.1, trainable="head"), tmp_path / "head")
    assert len(again.trainable_variables) == len(nested_model().trainable_variables)
    for name in ("best", "model"):  # without a warning about an optimizer of other variables
        loaded = keras.models.load_model(tmp_path / f"head/{name}.keras")
        assert len(loaded.trainable_variables) == len(again.trainable_variables)
    assert not keras.models.load_model(tmp_path / "run/model.keras").get_layer("body").trainable


def test_a_phase_in_which_all_is_frozen_is_refused(data, tmp_path):
    model = tiny_model()
    model.get_layer("logits").trainable = False
    plan = recipe(phases=(Phase(epochs=1, learning_rate=0.1, trainable="head"),))
    with pytest.raises(ValueError, match=r"Phase 1 of recipe 'test' trains only the classifier, but these are frozen"):
        train(model, data, plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


KILLED = """
import os, signal, sys
import keras, numpy as np
sys.path.insert(0, {tests!r})
from test_loop import At, recipe, tiny_model, weights_of
from se_keras.training import state
from se_keras.training.sources import ArraySource, Data, load_sample, open_data
from se_keras.training.loop import train

def kill(model):
    os.kill(os.getpid(), signal.SIGKILL)

def killed_while_writing(arrays, path, metadata, count=[0]):
    count[0] += 1
    if count[0] == 2:
        path.write_bytes(b"half a file")
        kill(None)
    save_file(arrays, path, metadata=metadata)

save_file = state.save_file
sample = load_sample()
data = Data(
    "sample",
    ArraySource(sample.x_train[:100], sample.y_train[:100], sample.class_names),
    ArraySource(sample.x_test[:40], sample.y_test[:40], sample.class_names),
)
mode, folder = {mode!r}, {folder!r}
if mode == "writing":
    state.save_file = killed_while_writing
model = tiny_model()
callbacks = [At(9, kill)] if mode == "epoch" else []
train(model, data, recipe(), folder, resume=mode == "resume", save_every=0.0, callbacks=callbacks)
np.savez(folder + ".npz", *weights_of(model))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["epoch", "writing"])
def test_killed_and_resumed_ends_with_the_same_bits(mode, data, tmp_path, run_warm):
    whole = tiny_model()
    train(whole, data, recipe(), tmp_path / "whole")
    code = {"tests": os.path.dirname(__file__), "folder": os.fspath(tmp_path / "run")}
    with pytest.raises(AssertionError, match="-9"):
        run_warm(KILLED.format(mode=mode, **code))
    assert (tmp_path / "run/state.safetensors").is_file()
    run_warm(KILLED.format(mode="resume", **code))
    with np.load(tmp_path / "run.npz") as found:
        for expected, name in zip(weights_of(whole), found.files, strict=True):
            np.testing.assert_array_equal(expected, found[name])


def test_git_state_is_told_where_there_is_one():
    found = versions()
    assert found["machine"].endswith(os.uname().machine)
    assert "commit" not in found or len(found["commit"].split()[0]) == 40


@pytest.mark.parametrize(("activation", "kind"), [("sigmoid", "independent probabilities"), (None, "logits")])
def test_ends_that_the_loss_is_not_for_are_refused(activation, kind, data, tmp_path):
    model = tiny_model()
    model = keras.Model(model.input, keras.layers.Dense(10, activation=activation)(model.layers[-2].output))
    with pytest.raises(ValueError, match=rf"must end in a softmax over its classes, even for two; .* is {kind}\."):
        train(model, data, recipe(), tmp_path / "run")
    model = keras.Model(model.input, keras.layers.Dense(1, activation="sigmoid")(model.layers[-2].output))
    with pytest.raises(ValueError, match=r"is probability\."):
        train(model, data, recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_photo_that_vanishes_is_named(tmp_path, rng):
    for number in range(3 * BATCH):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)

    class Remove(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            shutil.rmtree(tmp_path / "photos/a")

    photos = open_data(tmp_path / "photos")
    with pytest.raises(FileNotFoundError, match=r"^There is no image file at '.*photos/a/\d+\.png'\."):
        train(tiny_model(2), photos, recipe(), tmp_path / "run", verbose=0, callbacks=[Remove()])
    assert (tmp_path / "run/state.safetensors").is_file()
