"""Training on several devices: refusals, exact validation, and processes that compute what one computes, or die."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest

from se_keras.images.record import Preprocessing
from se_keras.training import distribute
from se_keras.training.batches import in_equal_parts
from se_keras.training.distribute import Processes, ProcessFailedError
from se_keras.training.sources import ArraySource, load_sample
from se_keras.training.state import read_progress

PROGRAM = pathlib.Path(__file__).with_name("tiny_training.py")
NEEDS_JAX = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
NEEDS_GRAIN = pytest.mark.skipif(importlib.util.find_spec("grain") is None, reason="Grain is not installed")
SIZE = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)

# Refusals.


def test_batch_that_devices_cannot_share_is_refused():
    processes = Processes(devices=3)
    processes.check_batch_size(96)
    with pytest.raises(ValueError, match="batch_size=128 for 3 devices"):
        processes.check_batch_size(128)


def test_join_on_tensorflow_says_that_multi_worker_does_not_work(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match=r"KERAS_BACKEND=jax.*keras-team/keras#20585"), distribute.join():
        pass


def test_mirrored_on_another_backend_names_the_remedy(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"), distribute.mirrored():
        pass


def test_mirrored_over_several_machines_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    cluster = {"cluster": {"worker": ["10.0.0.1:1234", "10.0.0.2:1234"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ValueError, match=r"names 2 workers.*keras-team/keras#20585"), distribute.mirrored():
        pass


@NEEDS_JAX
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("10.0.0.1:1234", 0, None), "go together"),
        (("10.0.0.1:1234", 2, 2), "from 0 to num_processes - 1"),
        (("10.0.0.1", 0, 2), "HOST:PORT"),
    ],
)
def test_join_with_unfit_arguments_says_which(monkeypatch, arguments, message):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=message), distribute.join(*arguments):
        pass


# One process among others.


def test_process_alone_asks_nobody():
    assert distribute.ALONE.any(True)
    assert not distribute.ALONE.any(False)
    done = []
    distribute.ALONE.in_turn(lambda: done.append("once"))
    assert done == ["once"]
    with pytest.raises(ZeroDivisionError):
        distribute.ALONE.in_turn(lambda: 1 / 0)


@dataclasses.dataclass(frozen=True)
class Answered(Processes):
    """Processes whose answers are given: one for each time that they are asked."""

    answers: tuple[bool, ...] = ()
    asked: list = dataclasses.field(default_factory=list)

    def any(self, value):
        self.asked.append(value)
        return value or self.answers[len(self.asked) - 1]


def test_failure_of_process_0_keeps_the_others_from_their_turn():
    done = []
    with pytest.raises(ProcessFailedError, match="its own output says why"):
        Answered(index=1, count=2, answers=(True,)).in_turn(lambda: done.append("mine"))
    assert done == []


def test_failure_of_another_process_ends_process_0_after_its_turn():
    done = []
    with pytest.raises(ProcessFailedError):
        Answered(index=0, count=2, answers=(False, True)).in_turn(lambda: done.append("mine"))
    assert done == ["mine"]


# Validation.


@NEEDS_GRAIN
@pytest.mark.parametrize("images", [1, 7, 8, 21])
def test_weights_of_shared_validation_give_the_mean_over_the_images(images):
    sample = load_sample()
    source = ArraySource(sample.x_test[:images], sample.y_test[:images], sample.class_names)
    batches = list(in_equal_parts(source, SIZE, batch_size=8))
    assert {len(weights) for _, _, weights in batches} == {8}
    value = np.concatenate([pixels.mean((1, 2, 3)) for pixels, _, _ in batches])
    weights = np.concatenate([weights for _, _, weights in batches])
    expected = np.mean([source[index].mean() for index in range(images)])
    assert (value * weights).sum() / len(value) == pytest.approx(expected, rel=1e-6)  # as Keras averages the loss
    assert (value * weights).sum() / weights.sum() == pytest.approx(expected, rel=1e-6)  # and weighted metrics


@NEEDS_GRAIN
def test_processes_share_each_batch_of_a_validation():
    sample = load_sample()
    source = ArraySource(sample.x_test[:21], sample.y_test[:21], sample.class_names)
    whole = list(in_equal_parts(source, SIZE, batch_size=8))
    parts = [list(in_equal_parts(source, SIZE, batch_size=8, shard=(part, 2))) for part in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        for content, *contents in zip(batch, *shares, strict=True):
            assert all(len(share) == 4 for share in contents)
            np.testing.assert_array_equal(np.stack(contents, 1).reshape(content.shape), content)


@NEEDS_GRAIN
def test_validation_batch_that_processes_cannot_share_is_refused():
    sample = load_sample()
    with pytest.raises(ValueError, match="3 processes must share"):
        in_equal_parts(ArraySource(sample.x_test, sample.y_test), SIZE, batch_size=8, shard=(0, 3))


# Several devices and processes. `tiny_training.py` trains for twenty steps.


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """`start(options, NAME="value", ...)`: the program under way, with these variables; it ends with the test."""
    started = []

    def run(options: dict, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, os.fspath(PROGRAM), json.dumps({**options, "folder": os.fspath(options["folder"])})],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with process:
            process.kill()


def results_of(process: subprocess.Popen) -> list[dict]:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-4000:]
    return json.loads(output.partition("RESULTS ")[2].splitlines()[0])


@pytest.fixture
def start_two(start: Callable[..., subprocess.Popen]) -> Callable[..., list[subprocess.Popen]]:
    """Two processes on the loopback interface; the second can send itself a signal in the middle of an epoch."""

    def run(folder: pathlib.Path, resume: bool = False, signals: dict | None = None) -> list[subprocess.Popen]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        options = {"way": "process", "folder": folder, "coordinator": address, "num_processes": 2, "resume": resume}
        environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        return [
            start({**options, "process_id": 0, "signals": None}, **environment),
            start({**options, "process_id": 1, "signals": signals}, **environment),
        ]

    return run


def assert_equal_training(result: dict, expected: dict, steps_before: int = 0) -> None:
    assert len(expected["losses"]) == 20
    np.testing.assert_allclose(result["losses"], expected["losses"][steps_before:], rtol=0, atol=1e-4)
    for row, expected_row in zip(result["history"], expected["history"], strict=True):
        for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
            assert row[name] == pytest.approx(expected_row[name], abs=1e-4), name
    np.testing.assert_allclose(result["answers"], expected["answers"], rtol=0, atol=1e-4)


@pytest.mark.slow
@NEEDS_JAX
@NEEDS_GRAIN
def test_processes_and_devices_on_jax_train_as_one_does(start, start_two, tmp_path):
    alone, devices = results_of(
        start(
            {"way": "alone and all devices", "folder": tmp_path},
            KERAS_BACKEND="jax",
            JAX_PLATFORMS="cpu",
            XLA_FLAGS="--xla_force_host_platform_device_count=2",
        )
    )
    assert devices["processes"] == {"index": 0, "count": 1, "devices": 2}
    assert_equal_training(devices, alone)

    # One of two is killed in the second epoch: the other ends, and both go on from the end of the first.
    folder = tmp_path / "killed"
    survivor, victim = start_two(folder, signals={"number": signal.SIGKILL, "epoch": 1})
    victim.communicate(timeout=600)
    died = time.monotonic()
    assert victim.returncode == -signal.SIGKILL
    _, errors = survivor.communicate(timeout=60)
    assert time.monotonic() - died < 60
    assert survivor.returncode != 0
    assert "ProcessFailedError" in errors
    assert read_progress(folder / "state.safetensors").epoch == 1
    shutil.copytree(folder, tmp_path / "one left")
    resumed, second = (results_of(process)[0] for process in start_two(folder, resume=True))
    assert resumed["processes"] == {"index": 0, "count": 2, "devices": 2}
    assert second["losses"] == resumed["losses"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "alone").iterdir()}
    # The other machine may not come back: one process goes on with what two began.
    [going_on] = results_of(
        start({"way": "one", "folder": tmp_path / "one left", "resume": True}, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    )
    assert going_on["processes"]["count"] == 1
    for result in (resumed, going_on):
        assert_equal_training(result, alone, steps_before=10)


@pytest.mark.slow
@NEEDS_JAX
@NEEDS_GRAIN
def test_processes_stop_together_when_one_is_told_to(start_two, tmp_path):
    for process in start_two(tmp_path, signals={"number": signal.SIGTERM, "epoch": 0}):
        _, errors = process.communicate(timeout=600)
        assert process.returncode == -signal.SIGINT, errors[-4000:]
        assert "KeyboardInterrupt" in errors
    position = read_progress(tmp_path / "state.safetensors")
    assert (position.epoch, position.step, len(position.history)) == (1, 0, 1)


@pytest.mark.slow
@NEEDS_GRAIN
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_mirrored_devices_train_as_one_does(start, tmp_path):
    alone, mirrored = results_of(
        start({"way": "alone and mirrored", "folder": tmp_path}, KERAS_BACKEND="tensorflow", CUDA_VISIBLE_DEVICES="")
    )
    assert mirrored["processes"] == {"index": 0, "count": 1, "devices": 2}
    assert_equal_training(mirrored, alone)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_state_under_mirrored_devices_is_restored_with_its_metrics(run_python, tmp_path):
    printed = run_python(
        """
        import os
        import keras, numpy as np, tensorflow as tf
        from se_keras.training import distribute
        from se_keras.training.state import Progress, restore_state, save_state, state_variables

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        with distribute.mirrored(["CPU:0", "CPU:1"]):
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
            model.compile("sgd", "mse", weighted_metrics=["mae"])
            model.fit(np.ones((4, 3)), np.ones((4, 2)), batch_size=4, verbose=0)
            save_state(os.environ["FILE"], model, Progress())
            before = model.get_metrics_result()
            model.reset_metrics()
            restore_state(os.environ["FILE"], model, metrics=True)
            after = model.get_metrics_result()
        print({name: float(value) for name, value in before.items()} == {k: float(v) for k, v in after.items()})
        """,
        KERAS_BACKEND="tensorflow",
        FILE=os.fspath(tmp_path / "state.safetensors"),
    )
    assert printed.strip().endswith("True")
