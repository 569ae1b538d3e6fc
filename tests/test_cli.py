"""The command line: what it prints, where, and with which exit code."""

import json
import os
import resource
import shutil
import subprocess
import sys

import any_inputs
import keras
import numpy as np
import pytest
from PIL import Image
from small_networks import answers, shortened

import se_keras
import se_keras_cli
from se_keras.class_names_file import write_class_names
from se_keras.weights.published import RECORDS


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "model.keras"
    shortened("se_resnet20", classes=3).save(path)
    return path


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.arange(48 * 64 * 3, dtype="uint8").reshape(48, 64, 3)).save(path)
    return path


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("ant\nbee\ncat\n")
    return path


def run(capsys, *arguments):
    code = se_keras_cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list_shows_every_network(capsys):
    code, out, _ = run(capsys, "list", "--json")
    assert code == 0
    assert [row["model"] for row in json.loads(out)] == se_keras.list_models()


def test_list_table_is_filtered(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = run(capsys, "list", "*inception*")
    assert code == 0
    assert "SE-BN-Inception" in out
    assert "resnext" not in out


def test_list_without_match_fails(capsys):
    code, out, err = run(capsys, "list", "nothing*")
    assert (code, out) == (1, "")
    assert "No network matches 'nothing*'" in err


def test_list_weights_is_sorted(capsys):
    code, out, _ = run(capsys, "list", "--weights", "--sort", "accuracy", "--json")
    assert code == 0
    rows = json.loads(out)
    assert len(rows) == len(RECORDS)
    measured = [row for row in rows if row["accuracy"]]
    by_dataset = [(row["dataset"], row["accuracy"][0]["top1"]) for row in measured]
    assert measured == rows[: len(measured)]
    imagenet = sum(dataset == "ImageNet-1k" for dataset, _ in by_dataset)
    assert 0 < imagenet < len(rows)
    assert by_dataset[:imagenet] == sorted((row for row in by_dataset if row[0] == "ImageNet-1k"), key=lambda r: -r[1])
    assert by_dataset[imagenet:] == sorted((row for row in by_dataset if row[0] == "CIFAR-10"), key=lambda r: -r[1])


def test_list_weights_of_one_network(capsys):
    code, out, _ = run(capsys, "list", "--weights", "se_resnet50")
    assert code == 0
    assert "se_resnet50.ra2_in1k" in out
    assert "se_resnet50.legacy_in1k" in out
    assert "se_resnext50" not in out


def test_list_within_limits(capsys):
    limits = ("--max-params", "6M", "--max-macs", "0.3g", "--min-accuracy", "75", "--license", "commercial")
    _, out, _ = run(capsys, "list", *limits, "--sort", "accuracy", "--json")
    rows = json.loads(out)
    assert [row["model"] for row in rows] == ["mobilenetv3_large_100", "tf_mobilenetv3_large_100"]
    assert [row["top1"] for row in rows] == sorted((row["top1"] for row in rows), reverse=True)
    _, out, _ = run(capsys, "list", *limits, "--weights", "--json")
    records = json.loads(out)
    assert len(records) == sum(len(row["weights"]) for row in rows)
    assert all(record["accuracy"][0]["top1"] >= 75 and record["parameters"] <= 6e6 for record in records)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--max-params 6X", 2, "--max-params: must be a number above 0, such as 6M, 2.5G, or 600000; received '6X'"),
        ("--max-params M", 2, "received 'M'"),
        ("--max-params 0k", 2, "received '0k'"),
        ("--max-macs inf", 2, "received 'inf'"),
        ("--min-accuracy 0.75", 2, "must be a percentage from 1 to 100, such as 75; received '0.75'"),
        ("--min-accuracy nan", 2, "received 'nan'"),
        ("--license bsd", 1, "Unknown license 'bsd'. Options: 'commercial', 'apache-2.0', 'bsd-3-clause'"),
        ("--max-params 10k", 1, "No network matches '*' within the other limits. `se-keras list` shows all."),
        ("--max-params 10k --weights", 1, "No weights match '*' within the other limits."),
    ],
)
def test_list_refuses_limits_that_are_none(arguments, code, message, capsys):
    try:
        found = se_keras_cli.main(["list", *arguments.split()])
    except SystemExit as exit:
        found = exit.code
    *_, last = capsys.readouterr().err.strip().split("\n")
    assert found == code
    assert message in last


def test_info_of_a_record(capsys):
    code, out, _ = run(capsys, "info", "se_resnet50.a3_in1k")
    assert code == 0
    for text in ("75.10 %", "160 px", "license", "not verified", "timm/seresnet50.a3_in1k/model.safetensors"):
        assert text in out


@pytest.mark.parametrize(
    "ending", [".keras", *(pytest.param(ending, marks=pytest.mark.slow) for ending in (".weights.h5", ".safetensors"))]
)
def test_convert_a_file(capsys, ending, tmp_path):
    source = se_keras.save_safetensors(se_keras.SEResNet20(), tmp_path / "source.safetensors")
    target = tmp_path / f"model{ending}"
    code, _, err = run(capsys, "convert", source, "--model", "se_resnet20", "--to", target)
    assert (code, err) == (0, "")
    images = np.full((1, 32, 32, 3), 99, "uint8")
    expected = answers(se_keras.SEResNet20(weights=source), images)
    np.testing.assert_array_equal(answers(se_keras.SEResNet20(weights=target), images), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, target.name])


def test_convert_says_in_json_what_it_wrote(capsys, tmp_path):
    target = tmp_path / "model.safetensors"
    code, out, _ = run(capsys, "convert", "se_resnet20.cifar10", "--to", target, "--json")
    assert code == 0
    written = {"file": str(target), "model": "se_resnet20", "size": target.stat().st_size, "lost": []}
    assert json.loads(out) == written


def test_convert_says_what_a_file_of_weights_alone_loses(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("se_keras.cli.convert.lost_without_config", lambda *_: ("preprocessing", "structure"))
    code, out, err = run(capsys, "convert", "se_resnet20.cifar10", "--to", tmp_path / "model.weights.h5")
    assert code == 0
    assert "does not hold this checkpoint's preprocessing and structure" in " ".join((out + err).split())


@pytest.mark.slow
def test_convert_keeps_an_existing_file(capsys, tmp_path):
    source = se_keras.save_safetensors(se_keras.SEResNet20(), tmp_path / "source.safetensors")
    target = tmp_path / "model.keras"
    target.write_text("precious")
    arguments = ["convert", source, "--model", "se_resnet20", "--to", target]
    for options in ([], ["--overwrite"]):
        code, _, err = run(capsys, *arguments, *options)
        assert code == 1
        assert "--overwrite" not in err
        assert "only a Keras model can be replaced there" in err
        assert target.read_text() == "precious"
    target.unlink()
    assert run(capsys, *arguments)[0] == 0
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert "add --overwrite" in err
    assert run(capsys, *arguments, "--overwrite")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".safetensors"])
def test_convert_on_a_full_disk_is_one_line(capsys, ending, tmp_path):
    source = se_keras.save_safetensors(se_keras.SEResNet20(), tmp_path / "source.safetensors")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        arguments = ["convert", source, "--model", "se_resnet20", "--to", tmp_path / f"m{ending}"]
        code, _, err = run(capsys, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert f"m{ending}' could not be written: File too large. Make room and try again; nothing was there" in err
    assert len(err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["source.safetensors"]


@pytest.mark.parametrize("command", [["export", "--format", "saved_model", "--output"], ["insert", "--to"]])
@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_what_is_not_ours_is_refused_before_any_work(capsys, command, options, tmp_path, monkeypatch):
    (tmp_path / "proj/photos").mkdir(parents=True)
    (tmp_path / "proj/photos/a.jpg").touch()
    (tmp_path / "proj/m.keras").write_text("thesis")
    monkeypatch.chdir(tmp_path / "proj")
    for target in [".", "..", "photos", "/"] if command[0] == "export" else ["m.keras"]:
        code, _, err = run(capsys, command[0], "no.keras", *command[1:], target, *options)
        assert code == 1
        assert "Choose another path" in err, "and not that there is no such model: the target is looked at first"
        assert "--overwrite" not in err
    assert [path.name for path in (tmp_path / "proj").rglob("*") if path.is_file()] == ["m.keras", "a.jpg"]


def test_convert_needs_to_know_the_network_of_a_file(capsys, tmp_path):
    source = se_keras.save_safetensors(se_keras.SEResNet20(), tmp_path / "source.safetensors")
    code, _, err = run(capsys, "convert", source, "--to", tmp_path / "model.keras")
    assert code == 1
    assert "--model" in err
    code, _, err = run(capsys, "convert", source, "--model", "se_resnet20", "--to", tmp_path / "model.onnx")
    assert code == 1
    assert "must end in .keras" in err


def test_info_totals_are_the_published_ones(capsys):
    code, out, _ = run(capsys, "info", "se_resnet50", "--json")
    assert code == 0
    info = json.loads(out)
    assert info["total"]["trainable"] == 28_088_024
    assert list(info["stages"]) == ["stem", "stage2", "stage3", "stage4", "stage5", "head"]


def test_info_table_names_stages_and_total(capsys):
    code, out, _ = run(capsys, "info", "se_resnet20")
    assert code == 0
    assert "stage4" in out
    assert "274,847" in out


def test_info_plain_and_size(capsys):
    code, out, _ = run(capsys, "info", "se_resnet20", "--plain", "--size", "64", "--json")
    assert code == 0
    info = json.loads(out)
    assert info["input_shape"] == [64, 64, 3]
    assert info["se_blocks"] == 0


def test_info_of_a_saved_model(capsys, model_file):
    code, out, _ = run(capsys, "info", model_file, "--json")
    assert code == 0
    assert json.loads(out)["se_blocks"] == 3


def test_unknown_model_suggests_names(capsys):
    code, _, err = run(capsys, "info", "se_resnet5")
    assert code == 1
    assert "Did you mean 'se_resnet5" in err
    assert "Traceback" not in err


def test_predict_agrees_with_the_model(capsys, model_file, photo, labels):
    code, out, _ = run(
        capsys, "predict", photo, photo, "--model", model_file, "--class-names", labels, "--top", 2, "--json"
    )
    assert code == 0
    rows = json.loads(out)
    model = keras.models.load_model(model_file)
    expected = model.predict(se_keras.preprocess(photo, model), verbose=0)[0]
    assert len(rows) == 2
    assert rows[0]["predictions"][0]["label"] == ["ant", "bee", "cat"][expected.argmax()]
    assert rows[0]["predictions"][0]["probability"] == pytest.approx(expected.max(), rel=1e-5)


def test_predict_table(capsys, model_file, photo, labels):
    code, out, _ = run(capsys, "predict", photo, "--model", model_file, "--class-names", labels)
    assert code == 0
    assert "bee" in out
    assert "%" in out


def test_predict_shows_names_and_labels_as_they_are(capsys, model_file, photo, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("[/x]\n[bold]bee\ncat:smile:\n")
    folder = tmp_path / "rich[/old]"
    folder.mkdir(parents=True)
    names = [shutil.copy(photo, folder / name) for name in ("IMG[copy].jpg", "a\x1b[31mred.jpg")]
    code, out, err = run(capsys, "predict", *names, "--model", model_file, "--class-names", labels)
    assert code == 0
    assert "\x1b" not in err
    assert "se-keras predict:" not in err
    for text in ("rich[/old]/IMG[copy].jpg", "a\\x1b[31mred.jpg", "[/x]", "[bold]bee", "cat:smile:"):
        assert text in out


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_predict_names_the_unreadable_file(capsys, model_file, labels, tmp_path, content):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(content)
    code, out, err = run(capsys, "predict", broken, "--model", model_file, "--class-names", labels)
    assert (code, out) == (1, "")
    assert str(broken) in err


def test_predict_answers_the_files_that_can_be_read(capsys, model_file, photo, labels, tmp_path):
    (tmp_path / "notes.txt").write_text("no image at all")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "line\nbreak.jpg").write_bytes(b"")
    paths = [tmp_path / "notes.txt", photo, tmp_path / "gone.jpg", tmp_path / "line\nbreak.jpg"]
    code, out, err = run(capsys, "predict", *paths, "--model", model_file, "--class-names", labels, "--json")
    assert code == 1
    rows = json.loads(out)
    assert [row["image"] for row in rows if "predictions" in row] == [str(photo)]
    assert len([row for row in rows if "error" in row]) == 3
    lines = [line for line in err.splitlines() if line.startswith("not classified: ")]
    assert [name in line for name, line in zip(("notes.txt", "gone.jpg", r"line\nbreak"), lines, strict=True)] == [
        True
    ] * 3


def test_strict_refuses_photos_that_cannot_be_read_before_anything_is_written(capsys, model_file, photo, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "good.png").write_bytes(photo.read_bytes())
    (folder / "cut.jpg").write_bytes(b"")
    target = tmp_path / "model.onnx"
    for arguments in (
        ("export", model_file, "--format", "onnx", "--output", target),
        ("verify", model_file),
    ):
        code, _, err = run(capsys, *arguments, "--data", folder, "--strict")
        assert code == 1
        assert "1 of 2 files cannot be read as images" in err
        assert "cut.jpg" in err
    assert not target.exists()


def test_predict_on_a_missing_file(capsys, model_file):
    code, _, err = run(capsys, "predict", "nowhere.jpg", "--model", model_file)
    assert code == 1
    assert "There is no image file at 'nowhere.jpg'" in err


def test_predict_with_a_missing_model(capsys, photo):
    code, _, err = run(capsys, "predict", photo, "--model", "nowhere.keras")
    assert code == 1
    assert "There is no model file at 'nowhere.keras'" in err


def test_predict_with_a_folder_or_an_exported_file_as_model(capsys, photo, model_file, tmp_path):
    code, _, err = run(capsys, "predict", photo, "--model", model_file.parent)
    assert code == 1
    assert f"is a folder: pass a .keras file, such as '{model_file}', or the name of a network" in err
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, "predict", photo, "--model", tmp_path / "empty")
    assert code == 1
    assert "is a folder: pass a .keras file, or the name of a network" in err
    (tmp_path / "p.tflite").touch()
    code, _, err = run(capsys, "predict", photo, "--model", tmp_path / "p.tflite")
    assert code == 1
    assert "Exported files can be passed to `info`, `evaluate`" in err


@pytest.mark.parametrize(
    "arguments", [["info"], ["export", "--format", "onnx"], ["export", "--format", "onnx", "--weights", "none"]]
)
def test_a_path_without_a_file_is_no_unknown_network(capsys, arguments):
    for path in ("nowhere.tflite", os.path.join("nowhere", "model")):
        code, _, err = run(capsys, *arguments, path)
        assert code == 1
        assert f"There is no model file at '{path}'" in err


def test_predict_needs_labels_for_own_classes(capsys, model_file, photo):
    code, _, err = run(capsys, "predict", photo, "--model", model_file)
    assert code == 1
    assert "--class-names" in err


@pytest.mark.slow
def test_labels_beside_the_model_are_taken(capsys, photo, labels, tmp_path):
    (tmp_path / "run").mkdir()
    file = tmp_path / "run/model.keras"
    se_keras.SEResNet20(classes=3).save(file)
    (tmp_path / "run/labels.txt").write_text("dog\neel\nfox\n")
    code, out, _ = run(capsys, "predict", photo, "--model", file, "--json")
    assert code == 0
    assert {row["label"] for row in json.loads(out)[0]["predictions"]} == {"dog", "eel", "fox"}
    code, out, _ = run(capsys, "predict", photo, "--model", file, "--class-names", labels, "--json")
    assert {row["label"] for row in json.loads(out)[0]["predictions"]} == {"ant", "bee", "cat"}
    (tmp_path / "run/labels.txt").write_text("of\nanother\nmodel\naltogether\n")
    assert run(capsys, "predict", photo, "--model", file)[0] == 1


@pytest.mark.slow
def test_labels_of_every_kind_reach_the_answers_and_the_export(capsys, photo, tmp_path):
    names = [" daisy", " ", "ro\nses"]
    se_keras.SEResNet20(classes=3).save(tmp_path / "model.keras")
    write_class_names(tmp_path / "labels.txt", names)
    code, out, _ = run(capsys, "predict", photo, "--model", tmp_path / "model.keras", "--json")
    assert code == 0
    assert sorted(row["label"] for row in json.loads(out)[0]["predictions"]) == sorted(names)
    (tmp_path / "labels.txt").write_bytes("d\xf6g\neel\nfox\n".encode("latin-1"))
    code, _, err = run(capsys, "predict", photo, "--model", tmp_path / "model.keras")
    assert code == 1
    assert "labels.txt' is not, at byte 1. Save it as UTF-8." in err


def test_predict_on_a_folder_says_how(capsys, model_file, photo):
    code, _, err = run(capsys, "predict", photo.parent, "--model", model_file)
    assert code == 1
    assert f"is a folder: pass it as --input {photo.parent}" in err


def test_predict_refuses_labels_that_do_not_fit(capsys, model_file, photo, tmp_path):
    labels = tmp_path / "two.txt"
    labels.write_text("ant\nbee\n")
    code, _, err = run(capsys, "predict", photo, "--model", model_file, "--class-names", labels)
    assert code == 1
    assert "3 classes" in err
    assert "3 classes; received 2 (the names in" in err


@pytest.fixture(scope="module")
def tflite_file(model_file):
    path = model_file.with_name("model.tflite")
    assert se_keras_cli.main(["export", str(model_file), "--format", "tflite", "--output", str(path), "--json"]) == 0
    return path


def test_export_writes_verifies_and_reports(capsys, model_file, tmp_path, labels):
    arguments = [
        "export",
        model_file,
        "--format",
        "saved_model",
        "--class-names",
        labels,
        "--output",
        tmp_path / "saved",
    ]
    code, out, err = run(capsys, *arguments, "--report", tmp_path / "report")
    assert (code, err) == (0, "")
    assert "TensorFlow" in out
    assert out.rstrip().endswith("passed")
    assert json.loads((tmp_path / "report" / "report.json").read_text())["format"] == "saved_model"
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert "--overwrite" in err


@pytest.mark.slow
def test_export_takes_the_labels_beside_the_model_or_says_that_there_are_none(capsys, model_file, tmp_path):
    file = shutil.copy(model_file, tmp_path / "model.keras")
    arguments = ["export", file, "--format", "tflite", "--output", tmp_path / "out.tflite", "--json", "--overwrite"]
    code, _, err = run(capsys, *arguments)
    assert code == 0
    assert "--class-names FILE adds them" in err
    (tmp_path / "labels.txt").write_text("dog\neel\nfox\n")
    code, _, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "out.json").read_text())["class_names"] == ["dog", "eel", "fox"]


@pytest.mark.slow
def test_export_calibrates_on_train_and_verifies_on_val(capsys, model_file, tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("val", 2)):
        for name in ("dog", "eel", "fox"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    arguments = ["export", model_file, "--format", "tflite", "--dtype", "int8", "--json", "--target", "cpu"]
    limits = ["--max-relative-error", 1, "--min-top1-agreement", 0, "--max-accuracy-drop", 1]
    code, out, err = run(capsys, *arguments, *limits, "--data", tmp_path / "photos", "--output", tmp_path / "a.tflite")
    assert code == 0, err
    (real,) = (row for row in json.loads(out)["agreements"] if row["images"] == "real" and row["runtime"] == "tflite")
    assert real["count"] == 6
    assert real["accuracy"] is not None
    assert "same photos" not in err
    _, _, err = run(capsys, *arguments, *limits, "--data", tmp_path / "photos/train", "--output", tmp_path / "b.tflite")
    assert "calibrated and verified on the same photos" in err


@pytest.mark.slow
def test_export_of_a_network_without_weights(capsys, tmp_path):
    target = tmp_path / "model.tflite"
    arguments = ["export", "se_resnet20", "--weights", "none", "--size", 48, "--format", "tflite", "--dtype", "fp16"]
    code, out, _ = run(capsys, *arguments, "--output", target, "--target", "cpu", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["dtype"] == "fp16"
    assert "(1, 48, 48, 3)" in report["inputs"][0]
    assert report["size"] == target.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(("form", "ending"), [("onnx", "onnx"), ("openvino", "xml")])
def test_export_writes_other_formats_in_half_precision(capsys, form, ending, model_file, tmp_path):
    pytest.importorskip(form, reason=f"needs the extra {form!r}")
    target = tmp_path / f"model.{ending}"
    arguments = ["export", model_file, "--format", form, "--dtype", "fp16", "--output", target, "--json"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    report = json.loads(out)
    assert (report["format"], report["dtype"]) == (form, "fp16")
    assert report["size"] == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["se_resnet20", "--format", "onnx", "--dtype", "int16x8"],
            "onnx can be written in fp32, fp16, int8;",
        ),
        (["se_resnet20", "--format", "saved_model", "--dtype", "fp16"], "saved_model can be written in fp32;"),
        (["se_resnet20", "--format", "onnx", "--input-type", "uint8"], "--input-type requires --format tflite"),
        (["se_resnet20", "--format", "openvino", "--output", "model.onnx"], "must end in .xml"),
        (["se_resnet20", "--weights", "none", "--format", "tflite", "--dtype", "int8"], "needs `data`"),
        (
            ["se_resnet20", "--weights", "none", "--format", "onnx", "--class-names", "labels.txt"],
            "each of the 10 classes",
        ),
        (["nowhere.keras", "--format", "tflite"], "There is no model file"),
    ],
)
def test_export_says_what_is_wrong(capsys, arguments, reason, tmp_path, labels, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "export", *arguments)
    assert code == 1
    assert reason in err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_verify_passes_and_fails_by_exit_code(capsys, tflite_file, model_file, photo):
    arguments = ["verify", tflite_file, "--model", model_file, "--data", photo.parent]
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "1 real" in out
    code, out, _ = run(capsys, *arguments, "--max-relative-error", 0, "--json")
    assert code == 1
    assert "differ by" in json.loads(out)["failures"][0]
    code, out, _ = run(capsys, "verify", tflite_file, "--target", "edgetpu")
    assert code == 1
    assert "Edge TPU" in out


@pytest.mark.slow
def test_layers_are_for_8_bits(capsys, tflite_file, model_file, tmp_path):
    code, _, err = run(capsys, "verify", tflite_file, "--layers")
    assert code == 1
    assert "requires a .tflite file in int8 or int16x8" in err
    to = ["export", model_file, "--output", tmp_path / "m.tflite", "--format"]
    code, _, err = run(capsys, *to, "tflite", "--layers")
    assert code == 1
    assert "--layers requires --format tflite and --dtype int8 or int16x8; received" in err
    code, _, err = run(capsys, *to, "onnx", "--keep-float", "auto")
    assert code == 1
    assert "--keep-float takes names only with --format tflite; received --format onnx --keep-float auto" in err
    code, _, err = run(capsys, *to, "saved_model", "--keep-float")
    assert code == 1
    assert "--keep-float requires --format tflite, onnx, or openvino; received" in err


@pytest.mark.slow
def test_info_describes_an_exported_file(capsys, tflite_file, tmp_path):
    code, out, err = run(capsys, "info", tflite_file)
    assert (code, err) == (0, "")
    assert "tflite, fp32" in out
    assert "(1, 32, 32, 3) float32" in out.replace("any", "1")
    assert "CONV_2D" in out
    assert "returns     probabilities" in out
    assert "pixels      from 0 to 255" in out
    assert "photos      resized (bilinear), central crop of 100%" in out
    code, out, _ = run(capsys, "info", tflite_file, "--json")
    facts = json.loads(out)
    assert facts["kinds"] == ["probabilities"]
    assert facts["size"] == tflite_file.stat().st_size
    assert facts["operations"]["CONV_2D"] == 15
    other = shutil.copy(tflite_file, tmp_path / "other.tflite")
    (tmp_path / "other.json").write_text(
        '{"input": {"height": "x", "range": ["low"], "crop_pct": "all"}, "output": ["a"]}'
    )
    code, out, _ = run(capsys, "info", other)
    assert (code, "pixels" in out, "photos" in out, "returns" in out) == (0, False, False, False)
    code, _, err = run(capsys, "info", tflite_file, "--size", 64)
    assert code == 1
    assert "an exported file is only described" in err
    (tmp_path / "notes.txt").write_text("hello")
    code, _, err = run(capsys, "info", tmp_path / "notes.txt")
    assert code == 1
    assert "notes.txt' is not a model that can be run here" in err


def test_verify_names_a_damaged_file(capsys, tflite_file, tmp_path):
    path = tmp_path / "half.tflite"
    path.write_bytes(tflite_file.read_bytes()[:9999])
    code, out, err = run(capsys, "verify", path)
    assert (code, out) == (1, "")
    assert "damaged or cut short" in err
    code, _, err = run(capsys, "verify", "nowhere.tflite")
    assert code == 1
    assert "There is no exported model at 'nowhere.tflite'" in err


@pytest.mark.slow
def test_benchmark_shows_every_contestant(capsys, tflite_file):
    beside = tflite_file.with_suffix(".json")
    arguments = ["benchmark", tflite_file, beside, "se_resnet20", "--repeats", 2, "--warmups", 1]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    for text in ("LiteRT", "Keras", "images/s", "Spread"):
        assert text in out
    code, out, _ = run(capsys, "benchmark", tflite_file, "--repeats", 2, "--batch-sizes", 1, 2, "--json")
    assert code == 0
    assert [row["speed"]["batch"] for row in json.loads(out)] == [1, 2]


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["predict"], ["demo", "--epochs", "0"], ["info"], ["verify"], ["export", "x"]]
)
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        se_keras_cli.main(arguments)
    assert exit_info.value.code == 2
    assert "usage: se-keras" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["list", "info", "predict", "convert", "export", "verify", "benchmark", "demo"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        se_keras_cli.main([command, "--help"])
    assert exit_info.value.code == 0
    assert f"se-keras {command}" in capsys.readouterr().out.split("example:")[1]


@pytest.mark.slow
def test_terminal_shows_no_framework_noise():
    done = subprocess.run([sys.executable, "-m", "se_keras_cli", "info", "se_resnet20"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("se_resnet20")


@pytest.mark.slow
def test_a_network_of_two_inputs_is_exported_verified_and_timed(capsys, tmp_path):
    model, samples = tmp_path / "two.keras", tmp_path / "samples.npz"
    any_inputs.image_and_table().save(model)
    np.savez(samples, **any_inputs.samples_for("image_and_table", 120), labels=np.zeros(120, int))
    target = tmp_path / "out.tflite"
    limits = ["--max-accuracy-drop", 1, "--min-top1-agreement", 0.9]
    arguments = ["export", model, "--format", "tflite", "--dtype", "int8", "--data", samples, "--output", target]
    code, _, err = run(capsys, *arguments, *limits, "--strict")
    assert code == 0, err
    assert "calibrated and verified on the same samples" in err
    code, out, err = run(capsys, "verify", target, "--model", model, "--data", samples, "--json", *limits)
    assert code == 0, err
    (real,) = (row for row in json.loads(out)["agreements"] if row["images"] == "real" and row["runtime"] == "tflite")
    assert (real["count"], real["unit"]) == (120, "samples")
    assert real["accuracy"] is not None
    code, out, err = run(capsys, "benchmark", target, model, "--repeats", 1, "--warmups", 1, "--json")
    assert code == 0, err
    assert len(json.loads(out)) == 2
    np.savez(samples, photo=np.zeros((120, 16, 16, 3)))
    code, _, err = run(capsys, "verify", target, "--model", model, "--data", samples)
    assert code != 0
    assert "The inputs must be 'photo', 'table'; received 'photo'." in err
