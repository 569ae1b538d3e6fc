"""Benchmarks go on without the contestants that cannot take part, and name them. No number is looked at."""

from __future__ import annotations

import importlib
import json
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


@pytest.fixture
def inference(contestant, monkeypatch):
    module = importlib.import_module("cpu_inference")
    monkeypatch.setattr(module, "NETWORKS", {"small": "timm_small"})
    return module


def test_inference_times_the_files_that_are_there(inference, tmp_path):
    for file in ("ours/fp32.onnx", "plain/fp32.onnx", "timm/fp32.onnx", "ours/int8.xml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert list(inference.commands("small", "int8", tmp_path, None)) == [("OpenVINO", "ours")]
    (tmp_path / "nothing_in_float").mkdir()
    (tmp_path / "nothing_in_float/int8.xml").touch()
    (tmp_path / "ours/int8.tflite").touch()
    for content, is_timed in (("", False), ("quantized throughout", True)):
        (tmp_path / "nothing_in_float/int8.tflite").write_text(content)
        found = inference.commands("small", "int8", tmp_path, None)
        assert (("OpenVINO", "nothing_in_float") in found) is is_timed
    with_peers = inference.commands("small", "fp32", tmp_path, "/other/python")
    in_onnx = [("ONNX Runtime", origin) for origin in ("ours", "plain", "timm")]
    assert list(with_peers) == [*in_onnx, ("PyTorch compiled", "timm")]
    assert [command[0] for command in with_peers.values()] == [sys.executable, sys.executable, *["/other/python"] * 2]


def test_inference_compares_what_took_part(inference):
    seconds = {("OpenVINO", "ours"): [2.0, 4.0, 6.0], ("OpenVINO", "without_se"): [1.0, 4.0, 4.0]}
    rows = inference.rows_of({**seconds, ("LiteRT", "ours"): [9.0] * 3})
    assert rows["OpenVINO, ours"] == {"median_s": 4.0, "min_s": 2.0, "max_s": 6.0, "over_without_se": 1.5}
    rows = inference.rows_of({**seconds, ("ONNX Runtime", "timm"): [8.0] * 3})
    assert rows["OpenVINO, ours"]["over_best_peer"] == 0.5
    in_one_runtime = inference.rows_of({**seconds, ("OpenVINO", "timm"): [4.0, 4.0, 12.0]})["OpenVINO, ours"]
    assert in_one_runtime["over_best_peer"] == in_one_runtime["over_timm"] == 0.5  # not 4 to 4
    limits = inference.limits_of({inference.title("small", "fp32"): rows})
    assert limits == {
        "small, fp32, OpenVINO: over_without_se": (1.5, 1.1),
        "small, fp32, OpenVINO: over_best_peer": (0.5, 1.0),
    }
    assert inference.limits_of({}) == {}


def test_inference_goes_on_without_peers(inference, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(inference, "HERE", tmp_path)
    (tmp_path / "inference_files.py").touch()
    inference.make_files("small", tmp_path, "/nowhere/python")
    assert capsys.readouterr().out.startswith("  left out: timm's timm_small in /nowhere/python ([Errno 2]")


def test_inference_keeps_only_results_of_this_machine(inference, monkeypatch, tmp_path):
    monkeypatch.setattr(inference, "RESULTS", tmp_path)
    rows = {"LiteRT, ours": {"median_s": 1.0}}
    record = {**inference.where(inference.PACKAGES, {}), "limits": {}, "small, fp32 (s)": rows}
    (tmp_path / "cpu_inference.json").write_text(json.dumps(record), "utf-8")
    assert inference.earlier({}) == {"small, fp32 (s)": rows}
    assert inference.earlier({"torch": "1.0"}) == {}


def test_inference_starts_contestants_several_times_and_drops_those_that_fail_once(inference, monkeypatch):
    starts = []

    def started(contestants):
        starts.append(list(contestants))
        return contestants if len(starts) < 3 else [name for name in contestants if name[1] != "fails later"]

    monkeypatch.setattr(inference, "STARTS", 3)
    monkeypatch.setattr(inference, "started", started)
    monkeypatch.setattr(inference, "take_turns", lambda runs, rounds: {name: [len(starts)] * rounds for name in runs})
    names = [("LiteRT", "ours"), ("TensorFlow", "ours"), ("LiteRT", "fails later")]
    found = inference.timed({name: [] for name in names}, rounds=4)
    together = [names[0], names[2]]  # those of one runtime take turns, and each starts first once in a while
    assert starts == [together, together[::-1], together, [names[1]], [names[1]]]
    assert found == {names[0]: [1, 1, 2, 2, 3, 3], names[1]: [4, 4, 5, 5]}
