"""Whatever goes wrong is one line on standard error, with exit code 1."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
import zipfile

import keras
import pytest

import se_keras_cli
from se_keras.cli import command_for
from se_keras.cli.failures import failure
from se_keras.errors import WeightsMismatchError


class ResourceExhaustedError(Exception):
    """As TensorFlow's, which is not imported for it."""


FAILURES = {
    "ours": (ValueError("`size` must be 1; received 0."), "se-keras info: `size` must be 1; received 0."),
    "lines": (RuntimeError("two\n   lines"), "se-keras info: two lines"),
    "type": (TypeError("cannot"), "m.keras: an unexpected error occurred (TypeError: cannot); --verbose shows where"),
    "key": (KeyError("config.json"), "m.keras: an unexpected error occurred (KeyError: 'config.json')"),
    "attribute": (AttributeError("no"), "m.keras: an unexpected error occurred (AttributeError: no)"),
    "zip": (zipfile.BadZipFile("Bad CRC"), "m.keras: an archive is damaged: write or download it again (BadZipFile"),
    "memory": (MemoryError(), "m.keras: there is not enough memory: use fewer or smaller images"),
    "tf memory": (ResourceExhaustedError("OOM"), "m.keras: there is not enough memory"),
    "tf disk": (ResourceExhaustedError("/x; No space left on device"), "m.keras: the disk is full"),
    "codec": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "m.keras: a text file is not UTF-8: save it in"),
    "empty": (ValueError(), "m.keras: an unexpected error occurred (ValueError)"),
    "markup": (ValueError("'x[/old]\x1b[31m'"), "se-keras info: 'x[/old]\\x1b[31m'"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_every_exception_is_one_line(name, monkeypatch, capsys):
    error, expected = FAILURES[name]

    def run(options):
        raise error

    monkeypatch.setattr("se_keras.cli.command_for", lambda options: run)
    assert se_keras_cli.main(["info", "m.keras"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert expected in err
    assert se_keras_cli.main(["info", "m.keras", "--verbose"]) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert expected in err


@pytest.mark.parametrize("command", [["verify", "m.onnx"], ["convert", "m.onnx", "--to", "x.keras"]])
def test_what_was_not_expected_names_the_file_that_was_read_first(command):
    options = se_keras_cli.parser().parse_args([*command, "--model", "other"])
    assert failure(IndexError("Read less"), options).startswith("m.onnx: an unexpected error occurred")


def test_ctrl_c_is_130(monkeypatch, capsys):
    def run(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("se_keras.cli.command_for", lambda options: run)
    assert se_keras_cli.main(["info", "m.keras"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_weights_that_do_not_fit_are_listed_by_line():
    error = WeightsMismatchError("a <- b", {"x": "(1,)"}, {"y": "(2,)"})
    assert failure(error, argparse.Namespace()) == str(error)


def test_long_messages_are_cut():
    assert len(failure(ValueError("config " * 1000), argparse.Namespace())) < 700


def test_the_file_is_named_once():
    options = argparse.Namespace(model=None, images=["a.jpg", "b.jpg"])
    assert failure(KeyError("a.jpg"), options).count("a.jpg") == 1
    assert failure(KeyError("x"), options).startswith("a.jpg: ")


def test_warnings_are_notes(monkeypatch, capsys):
    def run(options):
        warnings.warn("look\nhere [/x]", stacklevel=1)
        return 0

    monkeypatch.setattr("se_keras.cli.command_for", lambda options: run)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert se_keras_cli.main(["list"]) == 0
    assert capsys.readouterr().err == "note: look\\nhere [/x]\n"


def test_warnings_of_pillow_which_name_no_file_are_left_out(monkeypatch, capsys):
    def run(options):
        warnings.warn_explicit("Corrupt EXIF data", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
        return 0

    monkeypatch.setattr("se_keras.cli.command_for", lambda options: run)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert se_keras_cli.main(["list"]) == 0
    assert capsys.readouterr().err == ""


def test_usage_errors_show_what_was_typed(capsys):
    with pytest.raises(SystemExit):
        se_keras_cli.main(["info", "m", "\x1b[31m[/x]"])
    err = capsys.readouterr().err
    assert "unrecognized arguments: \\x1b[31m[/x]" in err


# Streams that are closed, or that nobody reads. `list` is quick: it imports no Keras.


def shell(command):
    environment = {**os.environ, "SE_KERAS": f"{sys.executable} -m se_keras_cli"}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    "command",
    [
        "$SE_KERAS list 2>&-",
        "$SE_KERAS list --json >&-",
        "$SE_KERAS list <&- >&- 2>&-",
        "set -o pipefail; $SE_KERAS list --json | head -1",
        "set -o pipefail; $SE_KERAS list --weights | true",
        "set -o pipefail; $SE_KERAS list --weights --json | true",
        "set -o pipefail; $SE_KERAS --help | true",
    ],
)
def test_closed_streams_are_no_failure(command):
    done = shell(command)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_under_the_output_is_one():
    for form in ("", "--json"):
        done = shell(f"$SE_KERAS list {form} > /dev/full")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "No space left on device" in done.stderr


def test_a_failure_with_closed_streams_has_its_code():
    assert shell("$SE_KERAS list nothing* 2>&-").returncode == 1


# Files.


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("failures") / "model.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="conv")]).save(path)
    return path


def without(path, member, target):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name != member:
                new.writestr(name, old.read(name))


def damaged_files(path, folder):
    content = path.read_bytes()
    wrong = bytearray(content)
    wrong[len(wrong) // 2] ^= 255
    for name, data in {
        "half": content[: len(content) // 2],
        "empty": b"",
        "page": b"\n<!DOCTYPE html><html>404</html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "zeros": b"\0" * 999,
        "hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 99,
        "text": b"hello",
        "flipped": bytes(wrong),
    }.items():
        (folder / f"{name}.keras").write_bytes(data)
    for member in ("config.json", "model.weights.h5"):
        without(path, member, folder / f"no_{member}.keras")
    return {
        "half": "is damaged or cut short",
        "empty": "an empty file: write or download it again",
        "page": "a web page",
        "lfs": "`git lfs pull`",
        "zeros": "a file of zeros",
        "hdf5": "is not a valid .keras file, but an HDF5 file",
        "text": "is damaged or not a valid .keras file",
        "flipped": "is damaged or cut short",
        "no_config.json": "config.json",
        "no_model.weights.h5": "model.weights.h5",
    }


def test_a_damaged_model_is_named_with_what_it_is(model_file, tmp_path, capsys):
    for name, expected in damaged_files(model_file, tmp_path).items():
        path = tmp_path / f"{name}.keras"
        assert se_keras_cli.main(["info", str(path)]) == 1, name
        err = capsys.readouterr().err
        assert expected in err, name
        assert repr(str(path)) in err, name
        assert err.count("\n") == 1, name
        assert "File not found" not in err


LAYERS = """
import keras

class Doubled(keras.layers.Layer):
    def call(self, x):
        return half(x) * 4

def half(x):
    return x / 2
"""


def test_layers_of_the_users_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_layers.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import own_layers

    keras.Sequential([keras.Input((8, 8, 3)), own_layers.Doubled()]).save("own.keras")
    assert se_keras_cli.main(["info", "own.keras"]) == 1
    err = capsys.readouterr().err
    assert "'own.keras' contains own_layers.Doubled, which Keras does not know" in err
    assert "--import MODULE" in err
    for name in ("Doubled", "half"):  # forgets them afterwards
        monkeypatch.setitem(keras.saving.get_custom_objects(), name, None)
    assert se_keras_cli.main(["info", "own.keras", "--import", "own_layers"]) == 0
    capsys.readouterr()
    for module, reason in (("nowhere", "No module named"), ("this", "defines no layer and no function")):
        assert se_keras_cli.main(["info", "own.keras", "--import", module]) == 1
        assert reason in capsys.readouterr().err


def test_commands_are_found():
    for command in ("list", "info", "train"):
        options = argparse.Namespace(command=command, model="se_resnet20.cifar10", recipes=True)
        assert callable(command_for(options))
