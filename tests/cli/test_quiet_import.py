"""What a package prints while it is loaded does not reach the terminal."""

import importlib.util
import sys

import pytest

from se_keras.cli.quiet_import import QuietImport, import_quietly


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    (tmp_path / "noisy_package.py").write_text("import os\nos.write(2, b'noise')\nVALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    yield "noisy_package"
    sys.modules.pop("noisy_package", None)


def test_messages_are_hidden_however_often_the_package_is_looked_for(noisy, capfd):
    import_quietly(noisy)
    assert isinstance(sys.meta_path[0], QuietImport)
    assert importlib.util.find_spec(noisy).name == noisy  # as PyTorch looks for TensorFlow
    assert importlib.import_module(noisy).VALUE == 1
    assert capfd.readouterr().err == ""


def test_without_it_they_are_shown(noisy, capfd):
    importlib.import_module(noisy)
    assert capfd.readouterr().err == "noise"


def test_a_missing_package_is_missing(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    import_quietly("no_such_package")
    assert importlib.util.find_spec("no_such_package") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_package")
