"""The commands around training: train, evaluate, insert and analyze, from the command line to the files."""

import argparse
import json
import shutil
import signal
import sys
import threading

import keras
import numpy as np
import pytest
from cases import ALL
from PIL import Image
from small_networks import answers, shortened

import se_keras
import se_keras_cli
from se_keras.cli import models
from se_keras.cli import train as train_command
from se_keras.training import loop, run_folder
from se_keras.training.recipes import RECIPES
from se_keras.training.sources import ArraySource, Data, load_sample

SHORT = ["train", "--model", "se_resnet20", "--recipe", "cifar", "--epochs", "1", "--batch-size", "32"]


NEW = ["--model", "se_resnet20", "--data", "sample", "--out", "run"]
UNREAD = ["--data", "nowhere", "--out", "run"]


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    sample, path = load_sample(), tmp_path_factory.mktemp("data") / "small.npz"
    arrays = {"x_train": sample.x_train[:64], "y_train": sample.y_train[:64]}
    np.savez(path, **arrays, x_test=sample.x_test[:30], y_test=sample.y_test[:30], class_names=sample.class_names)
    return path


@pytest.fixture(scope="module")
def finished(data_file, tmp_path_factory):
    """The folder of a training from the command line."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert se_keras_cli.main([*SHORT, "--data", str(data_file), "--out", str(folder), "--json"]) == 0
    return folder


def run(capsys, *arguments):
    code = se_keras_cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_training_leaves_everything_in_its_folder(finished):
    files = {path.name for path in finished.iterdir()}
    assert {"run.json", "log.csv", "model.keras", "best.keras", "metrics.json", "labels.txt", "curves.png"} <= files
    arguments = json.loads((finished / "run.json").read_text())["facts"]["arguments"]
    assert (arguments["recipe"], arguments["batch_size"], arguments["precision"]) == ("cifar", 32, "float32")
    names = load_sample().class_names
    assert (finished / "labels.txt").read_text().split() == list(names)
    for file in ("model.keras", "best.keras"):
        assert se_keras.get_class_names(keras.models.load_model(finished / file)) == names


EXPORTS = [
    ("saved_model", "fp32", "saved"),
    *(("tflite", dtype, f"{dtype}.tflite") for dtype in ("fp32", "fp16", "int8")),
    *(("onnx", dtype, f"{dtype}.onnx") for dtype in ("fp32", "fp16", "int8")),
    *(("openvino", dtype, f"{dtype}.xml") for dtype in ("fp32", "fp16", "int8")),
]
INT8_LIMITS = ["--min-top1-agreement", 0.9, "--max-accuracy-drop", 0.06]  # of 50 images


@pytest.fixture(scope="module")
def sample_photos(tmp_path_factory):
    """A folder of the bundled images: 120 to calibrate on, 50 to verify on."""
    sample, folder = load_sample(), tmp_path_factory.mktemp("photos")
    for part, images, labels in (
        ("train", sample.x_train[:120], sample.y_train[:120]),
        ("val", sample.x_test[:50], sample.y_test[:50]),
    ):
        for number, (image, label) in enumerate(zip(images, labels.reshape(-1), strict=True)):
            path = folder / part / f"{label}_{sample.class_names[label]}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not ALL, reason="make test-all writes ten files of one training")
def test_training_in_half_precision_passes_in_every_format(data_file, sample_photos, tmp_path, capsys):
    for package in ("onnx", "openvino", "nncf"):
        pytest.importorskip(package, reason=f"needs {package!r}")
    options = ["--recipe", "finetune", "--epochs", 2, "--precision", "mixed_bfloat16", "--data", data_file]
    code, _, err = run(capsys, "train", "--model", "se_resnet20.cifar10", *options, "--out", tmp_path / "run")
    assert code == 0, err
    keras.config.set_dtype_policy("float32")
    model = tmp_path / "run/model.keras"
    assert {layer.dtype_policy.name for layer in keras.models.load_model(model).layers[1:-2]} == {"mixed_bfloat16"}
    for form, dtype, file in EXPORTS:
        arguments = ["--format", form, "--dtype", dtype, "--data", sample_photos, "--output", tmp_path / file]
        limits = INT8_LIMITS if dtype == "int8" else []
        code, out, err = run(capsys, "export", model, *arguments, *limits, "--json")
        assert code == 0, (form, dtype, out, err)
        report = json.loads(out)
        assert report["dtype"] == dtype
        assert report["reference"].endswith("in float32")
    assert run(capsys, "verify", tmp_path / "saved", "--model", model, "--data", sample_photos)[0] == 0


def test_resume_needs_nothing_but_the_folder_and_refuses_other_settings(finished, data_file, capsys):
    code, out, _ = run(capsys, "train", "--resume", finished)
    assert code == 0
    assert "after 1 epoch (best" in out.replace("\n", " ")
    code, _, err = run(capsys, "train", "--resume", finished, "--seed", 5, "--plain")
    assert code == 1
    assert "--seed was 0, is now 5" in err
    assert "--plain was False, is now True" in err
    code, _, err = run(capsys, "train", "--resume", finished.parent)
    assert code == 1
    assert "There is no run to resume" in err
    code, _, err = run(capsys, *SHORT, "--data", data_file, "--out", finished)
    assert code == 1
    assert "already holds a run" in err


def options_of(*arguments):
    return se_keras_cli.parser().parse_args(["train", *map(str, arguments)])


def test_a_run_knows_its_images_in_every_folder_and_they_may_move(data_file, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    shutil.copy(data_file, tmp_path / "a/small.npz")
    monkeypatch.chdir(tmp_path / "a")
    new = options_of("--model", "se_resnet20", "--data", "small.npz", "--out", "run")
    arguments, folder = train_command._arguments(new)
    data = train_command._data(arguments, new)
    assert data.name == "small.npz"
    facts = {"data": {"name": data.name, "fingerprint": data.train.fingerprint}, "arguments": arguments}
    run_folder.begin_run(folder, facts, resume=False)
    monkeypatch.chdir(tmp_path / "b")
    again = options_of("--resume", "../a/run")
    arguments, folder = train_command._arguments(again)
    assert train_command._data(arguments, again).train.fingerprint == data.train.fingerprint
    (tmp_path / "a/small.npz").rename(tmp_path / "b/moved.npz")
    with pytest.raises(FileNotFoundError, match=r"no longer at '.*a/small.npz'. Name .* with --data"):
        train_command._data(arguments, again)
    moved = options_of("--resume", "../a/run", "--data", "moved.npz")
    found = train_command._data(train_command._arguments(moved)[0], moved)
    facts["data"] = {"name": found.name, "fingerprint": found.train.fingerprint}
    run_folder.begin_run(folder, facts, resume=True)
    facts["data"] = {"name": found.name, "fingerprint": "other"}
    with pytest.raises(ValueError, match=r"Differences: data.fingerprint was '\w+', is now 'other'"):
        run_folder.begin_run(folder, facts, resume=True)


def test_a_damaged_run_is_one_line(tmp_path, capsys):
    for content in ("", "{", '{"facts": 1}', '{"facts": {"arguments": {"model": "x"}}}'):
        (tmp_path / "run.json").write_text(content)
        code, _, err = run(capsys, "train", "--resume", tmp_path)
        assert code == 1
        assert "run.json' is damaged" in err
        assert len(err.strip().splitlines()) == 1


def test_a_run_in_use_is_refused_before_any_image_is_read(tmp_path, capsys):
    held, done = threading.Event(), threading.Event()

    def hold():
        with run_folder.claimed(tmp_path / "run"):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    code, _, err = run(capsys, *SHORT, "--data", "nowhere", "--out", tmp_path / "run")
    done.set()
    thread.join()
    assert code == 1
    assert "Another process is at work on" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(data_file, tmp_path, capsys, monkeypatch):
    shortened("se_resnet20").save(tmp_path / "short.keras")
    arguments = ["train", "--model", tmp_path / "short.keras", *SHORT[3:], "--data", data_file]

    class Interrupting(loop.SaveRun):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "SaveRun", Interrupting)
        code, _, err = run(capsys, *arguments, "--out", tmp_path / "run")
    assert code == 130
    assert "interrupted; resume with: se-keras train --resume" in err
    assert run(capsys, "train", "--resume", tmp_path / "run")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "run"], "needs --model, --data"),
        ([*NEW, "--recipe", "best"], "no recipe 'best'"),
        ([*NEW, "--recipe", "cifar", "--data", "nowhere"], "must be a folder of images"),
        ([*NEW, "--recipe", "cifar", "--process-id", "1"], "require --distribute jax"),
        ([*NEW, "--recipe", "cifar", "--devices", "CPU:0"], "--distribute mirrored"),
        # Before any image is read:
        ([*UNREAD, "--model", "se_resnet2"], "Unknown model 'se_resnet2'. Did you mean"),
        ([*UNREAD, "--model", "seresnet18"], "'seresnet18' would start from random weights"),
        ([*UNREAD, "--model", "se_resnet20.cifar"], "Did you mean 'cifar10'"),
        ([*UNREAD, "--model", "se_resnet20", "--weights", "imagenet"], "has no ImageNet weights"),
        ([*UNREAD, "--model", "se_resnet20", "--weights", "no.safetensors"], "no weights file at 'no.safetensors'"),
        ([*UNREAD, "--model", "se_resnet20.cifar10", "--weights", "cifar10"], "leave out --weights"),
        ([*UNREAD, "--model", "no.keras"], "no model file at 'no.keras'"),
        ([*UNREAD, "--model", "."], "is a folder: pass a .keras file"),
        ([*UNREAD, "--model", "se_resnet20"], "'finetune' first trains the classifier alone"),
        ([*UNREAD, "--model", "se_resnet20", "--recipe", "cifar", "--plain", "--reduction", "4"], "only one of them"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "train", *arguments)
    assert code == 1
    assert message in err
    assert not (tmp_path / "run/run.json").exists()


def test_tensorboard_is_asked_for_before_any_image_is_read(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "train", *UNREAD, "--model", "se_resnet20", "--recipe", "cifar", "--tensorboard")
    assert code == 1
    assert "needs the package 'tensorboard'. Install it with: pip install 'se_keras[tensorboard]'" in " ".join(
        err.split()
    )


def test_folders_named_like_what_is_named_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"model": "se_resnet20", "recipe": "cifar", "weights": "cifar10", "precision": "float32"}
    for name in names.values():
        (tmp_path / name).mkdir()
    assert {option: train_command._lasting(option, value) for option, value in names.items()} == names
    assert models.is_path("se_resnet20") is False
    (tmp_path / "photos").mkdir()
    assert train_command._lasting("data", "photos") == str(tmp_path / "photos")
    (tmp_path / "se_resnet20/saved_model.pb").touch()
    assert models.is_path("se_resnet20") is True


@pytest.mark.parametrize(
    "option",
    [("--weights", "cifar10"), ("--plain",), ("--reduction", "4"), ("--size", "32"), ("--precision", "mixed_bfloat16")],
)
def test_what_builds_a_network_is_refused_for_a_file(option, capsys, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"")
    arguments = ["--model", tmp_path / "model.keras", "--data", "nowhere", "--out", tmp_path / "run"]
    code, _, err = run(capsys, "train", *arguments, *option)
    assert code == 1
    assert f"{option[0]} cannot be applied to" in err


def test_recipes_are_listed_with_their_evidence(capsys):
    code, out, _ = run(capsys, "train", "--recipes", "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)] == list(RECIPES)
    assert run(capsys, "train", "--recipes")[1].count("evidence:") == len(RECIPES)


def test_defaults_of_the_command_are_named_like_its_options():
    options = vars(se_keras_cli.parser().parse_args(["train"]))
    assert set(train_command.DEFAULTS) <= set(options)


def test_evaluate_gives_the_accuracy_of_the_run(finished, data_file, tmp_path, capsys):
    code, out, _ = run(
        capsys, "evaluate", finished / "model.keras", "--data", data_file, "--json", "--report", tmp_path
    )
    assert code == 0
    stated = json.loads((finished / "metrics.json").read_text())
    assert json.loads(out) == stated == json.loads((tmp_path / "metrics.json").read_text())
    assert (tmp_path / "confusion.png").is_file()
    code, out, err = run(capsys, "evaluate", finished / "model.keras", "--data", data_file, "--min-accuracy", "1")
    assert code == 1
    assert "below --min-accuracy 1" in err
    assert "airplane" in out


@pytest.fixture
def photos(tmp_path):
    """Two classes of twenty photos."""
    sample = load_sample()
    for name in ("bird", "cat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        chosen = sample.x_train[sample.y_train == sample.class_names.index(name)][:20]
        for index, pixels in enumerate(chosen):
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


@pytest.mark.slow
def test_images_that_were_trained_on_are_not_evaluated_on(photos, tmp_path, capsys):
    file = tmp_path / "run/model.keras"
    file.parent.mkdir()
    shortened("se_resnet20", classes=2).save(file)
    arguments = ["evaluate", file, "--data", photos, "--json"]
    assert json.loads(run(capsys, *arguments)[1])["images"] == 11
    (file.parent / "run.json").write_text('{"facts": {"arguments": {"validation_split": 0.1}}}')
    assert json.loads(run(capsys, *arguments)[1])["images"] == 5
    assert json.loads(run(capsys, *arguments, "--validation-split", "0.5")[1])["images"] == 26
    arguments = ["analyze", file, "--data", photos, "--out", tmp_path / "figures", "--json"]
    assert run(capsys, *arguments)[0] == 0
    with np.load(tmp_path / "figures/gates.npz") as gates:
        assert int(gates["counts"].sum()) == 5


def test_evaluate_knows_the_classes_beside_the_model(tmp_path, capsys):
    sample, names = load_sample(), list(load_sample().class_names)
    arrays = {"x_train": sample.x_train[:10], "y_train": sample.y_test[:10] * 0 + np.arange(10)}
    arrays = {**arrays, "x_test": sample.x_test[:8], "y_test": sample.y_test[:8]}
    np.savez(tmp_path / "numbers.npz", **arrays)
    reversed_labels = {part: 9 - arrays[part].astype(int) for part in ("y_train", "y_test")}
    np.savez(tmp_path / "order.npz", **{**arrays, **reversed_labels}, class_names=names[::-1])
    np.savez(tmp_path / "renamed.npz", **arrays, class_names=[*names[1:], "zeppelin"])  # a folder that sorts elsewhere
    se_keras.SEResNet20().save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("\n".join(names))
    code, out, _ = run(capsys, "evaluate", tmp_path / "model.keras", "--data", tmp_path / "numbers.npz", "--json")
    assert code == 0
    assert list(json.loads(out)["by_class"]) == names
    accuracy = json.loads(out)["accuracy"]
    code, out, _ = run(capsys, "evaluate", tmp_path / "model.keras", "--data", tmp_path / "order.npz", "--json")
    assert (code, json.loads(out)["accuracy"]) == (0, accuracy)
    assert list(json.loads(out)["by_class"]) == names[::-1]
    code, _, err = run(capsys, "evaluate", tmp_path / "model.keras", "--data", tmp_path / "renamed.npz")
    assert code == 1
    assert "9 of the model's classes" in err
    assert "in another order" in err


def test_insert_takes_published_weights(capsys):
    code, out, _ = run(capsys, "insert", "se_resnet20.cifar10_plain", "--list", "--json")
    assert code == 0
    assert len(json.loads(out)["positions"]) == 9


@pytest.mark.slow
def test_insert_shows_where_and_writes_a_model_of_the_same_answers(tmp_path, capsys):
    base = se_keras.SEResNet20(se=None)
    base.save(tmp_path / "plain.keras")
    code, out, _ = run(capsys, "insert", tmp_path / "plain.keras", "--list", "--json")
    assert code == 0
    assert len(json.loads(out)["positions"]) == 9
    code, out, _ = run(capsys, "insert", tmp_path / "plain.keras", "--to", tmp_path / "json.keras", "--json")
    assert code == 0
    written = json.loads(out)
    assert written["file"] == str(tmp_path / "json.keras")
    added = keras.models.load_model(tmp_path / "json.keras").count_params() - base.count_params()
    assert written["parameters_added"] == added > 0
    code, out, _ = run(capsys, "insert", tmp_path / "plain.keras", "--to", tmp_path / "se.keras", "--reduction", 8)
    assert code == 0
    assert "9 blocks" in out
    images = load_sample().x_test[:4]
    inserted = keras.models.load_model(tmp_path / "se.keras", compile=False)
    np.testing.assert_allclose(answers(inserted, images), answers(base, images), rtol=1e-5, atol=1e-7)
    code, _, err = run(capsys, "insert", tmp_path / "plain.keras", "--to", tmp_path / "se.keras")
    assert code == 1
    assert "--overwrite" in err
    code, _, err = run(capsys, "insert", tmp_path / "plain.keras", "--where", "no_such_layer", "--list")
    assert code == 1
    assert "no_such_layer" in err
    code, _, err = run(capsys, "insert", tmp_path / "plain.keras")
    assert code == 1
    assert "--to FILE.keras" in err
    code, _, err = run(capsys, "insert", tmp_path / "se.keras", "--to", tmp_path / "again.keras")
    assert code == 1
    assert "no position for a block, so nothing was written (the table says why)" in err
    assert not (tmp_path / "again.keras").exists()


@pytest.mark.slow
def test_analyze_writes_figures_and_their_numbers(data_file, tmp_path, capsys):
    shortened("se_resnet20").save(tmp_path / "short.keras")
    arguments = ["analyze", tmp_path / "short.keras", "--data", data_file, "--out", tmp_path / "f", "--json", "--prune"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    result = json.loads(out)
    assert len(result["blocks"]) == 3
    assert [len(report["changes"]) for report in result["pruning"]] == [3] * len(result["pruning"])
    assert sorted(result["files"]) == sorted(path.name for path in (tmp_path / "f").iterdir())
    names = {path.name for path in (tmp_path / "f").iterdir()}
    for name in ("profiles", "depth", "classes", "image"):
        assert {f"{name}.png", f"{name}.csv"} <= names
    assert "gates.npz" in names
    shown = [argument for argument in arguments if argument != "--json"]
    code, out, _ = run(capsys, *shown, "--overwrite")
    assert code == 0
    assert "What constant gates would save and cost" in out
    assert f"{result['pruning'][0]['parameters'][0]:,}" in out
    code, _, err = run(capsys, "analyze", "se_resnet20.cifar10_plain", "--data", data_file, "--out", tmp_path / "g")
    assert code == 1
    assert "Gates are read from SqueezeExcite layers" in err


@pytest.mark.parametrize(("place", "name"), [(".", None), ("..", "photos"), ("../other", None)])
def test_data_are_named_as_seen_from_the_working_folder(place, name, tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    for label in ("a", "b"):
        (photos / label).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8)).save(photos / label / f"{number}.png")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(photos)
    monkeypatch.chdir(place)
    arguments = {"data": str(photos), "validation_split": 0.5, "strict": True}
    assert train_command._data(arguments, argparse.Namespace(data=None)).name == (name or str(photos))


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (200, "10 epochs of 6 steps are little training for so few images; --epochs 50 takes longer"),
        (20, "10 epochs of 1 step are little training for so few images; --epochs 300 takes longer"),
        (2934, ""),
    ],
)
def test_few_images_get_a_hint_at_more_epochs(capsys, images, expected):
    train_command._hint(images, RECIPES["finetune"])
    captured = capsys.readouterr()
    said = " ".join((captured.out + captured.err).split())
    assert expected in said
    assert bool(said) == bool(expected)


def test_files_left_out_are_listed_one_per_line_at_every_start(tmp_path, capsys):
    names = ("a\nb.jpg", "c\td.jpg", "\x1b[2Je\x01.jpg", "g\u2028h.jpg")
    source = ArraySource(np.zeros((2, 8, 8, 3), np.uint8), [0, 1], ["x", "y"])
    data = Data("photos", source, source, tuple((name, "empty\n(0 bytes)") for name in names))
    for _ in range(2):  # a new run, and one that is resumed
        train_command._report(data, tmp_path)
        lines = (tmp_path / "broken.txt").read_text("utf-8").splitlines()
        assert [line.split("\t") for line in lines] == [
            [name, r"empty\n(0 bytes)"] for name in (r"a\nb.jpg", r"c\td.jpg", r"\x1b[2Je\x01.jpg", r"g\u2028h.jpg")
        ]
    (tmp_path / "broken.txt").write_text("my own notes\n")
    capsys.readouterr()
    train_command._report(data, tmp_path)
    assert (tmp_path / "broken.txt").read_text() == "my own notes\n"
    said = capsys.readouterr().err
    assert "4 of the files cannot be read as images and are left out: " in said
    assert "broken.txt' is a file of 13 bytes" in said
