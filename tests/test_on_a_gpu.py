"""`benchmarks/on_a_gpu.sh`, tried on the CPU: it leaves results and states when its time is over."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from cases import ALL

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "on_a_gpu.sh"

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")


def run(*arguments, **settings):
    environment = {**os.environ, "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu", **settings}
    return subprocess.run(["sh", SCRIPT, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.skipif(not ALL, reason="make test-all does this")
@pytest.mark.slow
def test_results_and_states_remain_when_the_time_is_over(tmp_path, rng):
    images = rng.integers(0, 256, (144, 32, 32, 3)).astype("uint8")
    labels = (np.arange(144) % 10).astype("uint8")
    data = tmp_path / "data.npz"
    np.savez(data, x_train=images[:128], y_train=labels[:128], x_test=images[128:], y_test=labels[128:])
    folder = tmp_path / "out"

    done = run(folder, "speed", MINUTES="0.3", SPEED="--allow-cpu --rounds 2")
    assert "training, batch 2 (s)" in done.stdout, done.stderr
    record = json.loads((folder / "gpu.json").read_text("utf-8"))
    (rows,) = [rows for title, rows in record["sections"].items() if title.startswith("training")]
    assert rows["JAX: SE-ResNet-50"]["images_per_s"] > 0
    assert record["device"]
    assert record["size"] == 32

    study = {"DATA": str(data), "SEEDS": "0 1", "EPOCHS": "1", "MINUTES": "0", "STUDY": "--precision float32"}
    done = run(folder, "study", **study)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the state is saved") == 2
    assert sorted(path.name for path in folder.glob("study-*.state")) == ["study-plain.state", "study-se_r4.state"]


def test_unknown_steps_and_missing_data_are_named(tmp_path):
    done = run(tmp_path, "sped")
    assert done.returncode == 2
    assert "The steps are speed and study; received: sped" in done.stderr
    done = run(tmp_path, "study")
    assert done.returncode
    assert "DATA must name the npz files" in done.stderr
