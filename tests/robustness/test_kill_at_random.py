"""One kill for each writing command, at moments drawn at random; `kill_at_random.py` does as many as one likes."""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("kill_at_random.py")


@pytest.mark.slow
def test_each_command_is_whole_and_clean_after_a_kill_and_one_more_run(tmp_path):
    pytest.importorskip("tf2onnx", reason="needs tf2onnx")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("openvino", reason="needs OpenVINO")
    results = tmp_path / "kills.json"
    command = [sys.executable, SCRIPT, "--kills", "10", "--seed", "3", "--results", results]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    found = json.loads(results.read_text())
    assert len({entry["command"] for entry in found}) == 10
    assert sum(entry["at_work"] for entry in found) > 4
    assert "10 kills" in done.stdout
