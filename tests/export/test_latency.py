"""Timing side by side: the settings, the turns, and what is refused. Numbers are only checked for being there."""

import contextlib
import json

import keras
import numpy as np
import pytest

from se_keras import export
from se_keras.export.process import RuntimeRefusedError, Worker
from se_keras.export.speed import speed_of
from se_keras.progress import shown_by


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return export.tflite(model, tmp_path_factory.mktemp("benchmark") / "model.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("other", ["tflite", pytest.param("keras", marks=pytest.mark.slow)])
def test_every_setting_of_every_contestant(other, model, file):
    rounds = []
    contestants = {"other": {"tflite": file, "keras": model}[other], "tflite": file}

    @contextlib.contextmanager
    def display(title, total):
        rounds.append(total)
        yield lambda: None

    with shown_by(display):
        rows = export.benchmark(contestants, threads=(1, 2), batch_sizes=(1, 3), repeats=2, warmups=1)
    settings = [(row.speed.threads, row.speed.batch, row.name) for row in rows]
    assert settings == [(t, b, name) for t in (1, 2) for b in (1, 3) for name in contestants]
    assert rounds == [3] * 4
    for row in rows:
        assert isinstance(row, export.Measurement)
        assert row.speed.runtime == (other if row.name == "other" else "tflite")
        assert row.speed.runs == 2
        assert 0 < row.speed.least <= row.speed.median
        assert row.images_per_second == pytest.approx(row.speed.batch / row.speed.median)
        assert row.size > 4 * model.count_params()
        assert row.dtype == "fp32"
    assert json.loads(json.dumps(rows[0].to_dict()))["speed"]["batch"] == 1


def test_summary_of_runs():
    speed = speed_of("tflite", 2, [4.0, 1.0, 2.0, 3.0, 5.0], 7, batch=3)
    assert (speed.median, speed.least, speed.quartiles, speed.runs) == (3.0, 1.0, (2.0, 4.0), 5)


def test_bad_arguments_are_refused(file, tmp_path):
    with pytest.raises(ValueError, match="at least one file"):
        export.benchmark([])
    for name in ("threads", "batch_sizes"):
        with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1"):
            export.benchmark([file], **{name: [0]})
    with pytest.raises(ValueError, match="`repeats`"):
        export.benchmark([file], repeats=0)
    for given in ([tmp_path / "nowhere.tflite"], tmp_path / "nowhere.tflite"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            export.benchmark(given)
    with pytest.raises(ValueError, match=r"'gpu' must be|Unknown gpu 'phone'|'phone'"):
        export.benchmark({"file": file}, gpu=["phone"])
    with pytest.raises(ValueError, match=r"must differ; received tiny, tiny\. Pass a mapping"):
        export.benchmark([keras.Sequential(name="tiny"), keras.Sequential(name="tiny")])


def test_contestant_that_does_not_run_is_named(file, tmp_path):
    path = tmp_path / "half.tflite"
    path.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(RuntimeRefusedError, match=r"half\.tflite' cannot be timed: LiteRT CPU refuses the m"):
        export.benchmark([file, path])


LAYER = """
import keras

class Tripled(keras.layers.Layer):
    def call(self, x):
        return x * 3
"""


@pytest.mark.slow
def test_a_process_of_its_own_knows_the_users_layers(tmp_path, monkeypatch):
    (tmp_path / "layers_of_mine.py").write_text(LAYER)
    monkeypatch.syspath_prepend(tmp_path)
    import layers_of_mine

    path = tmp_path / "own.keras"
    keras.Sequential([keras.Input((8, 8, 3)), layers_of_mine.Tripled()]).save(path)
    with pytest.raises(
        RuntimeRefusedError, match=r"own\.keras' contains layers_of_mine\.Tripled, which Keras does not"
    ):
        Worker(path)
    monkeypatch.setitem(keras.saving.get_custom_objects(), "Tripled", layers_of_mine.Tripled)
    with Worker(path) as worker:
        (found,) = worker.run({"images": np.ones((1, 8, 8, 3), "float32")}).values()
        assert found.max() == 3
