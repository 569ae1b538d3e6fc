"""Benchmarks go on without the contestants that cannot take part, and name them. No number is looked at."""

from __future__ import annotations

import importlib
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
WORKER = "import sys; print('ready', flush=True); [print(0.5, flush=True) for _ in sys.stdin]"
ENDS = "import sys; print('ready', flush=True); sys.stdin.readline(); print(0.5, flush=True)"
MISSING = "import package_that_is_not_there"


@pytest.fixture
def contestant(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return importlib.import_module("contestant")


def test_who_cannot_start_or_ends_is_left_out_and_named(contestant, capsys):
    commands = {
        "runs": [sys.executable, "-c", WORKER],
        ("lacks", "a package"): [sys.executable, "-c", MISSING],
        "no python": ["/nowhere/python", "-c", WORKER],
        "ends": [sys.executable, "-c", ENDS],
    }
    runs = contestant.started(commands)
    assert list(runs) == ["runs", "ends"]
    assert contestant.take_turns(runs, rounds=3) == {"runs": [0.5, 0.5, 0.5]}
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("  left out: lacks: a package (ModuleNotFoundError: No module named 'package_that")
    assert out[1] == "  left out: no python (/nowhere/python cannot be run: No such file or directory)"
    assert out[2] == "  left out: ends (its process ended)"
    assert len(out) == 3


def test_versions_of_another_python(contestant):
    found = contestant.installed(sys.executable, ("numpy", "no-such-package"))
    assert list(found) == ["numpy"]
    assert contestant.installed("/nowhere/python", ("numpy",)) == {}


@pytest.mark.parametrize("missing", [("torch",), ("tensorflow", "tensorflow:mixed_bfloat16"), ("pipeline", "jax")])
def test_training_reports_what_took_part(missing, contestant, monkeypatch):
    training = importlib.import_module("training")
    reported = {}

    def started(commands):
        return {kind: kind for kind in commands if kind not in missing}

    monkeypatch.setattr(training, "started", started)
    monkeypatch.setattr(training, "take_turns", lambda runs, rounds: {kind: [1.0] * rounds for kind in runs})
    monkeypatch.setattr(training, "report", lambda name, sections, **rest: reported.update(sections=sections) or 0)
    monkeypatch.setattr(sys, "argv", ["training.py", "--peers", "/nowhere/python"])
    assert training.main() == 0
    for rows in reported["sections"].values():
        assert set(rows) == {*training.BACKENDS, *training.PEERS} - set(missing)


def test_inference_compares_what_took_part(contestant, monkeypatch):
    inference = importlib.import_module("cpu_inference")
    rows = {name: {"median_s": 1.0} for name in (inference.REFERENCE, "OpenVINO fp32")}
    assert list(inference._limits(rows)) == ["our TFLite fp32 over OpenVINO"]
    assert inference._limits({}) == {}
    assert inference.make_peers("/nowhere/python", pathlib.Path("nowhere")) == {}
