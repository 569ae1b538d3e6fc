"""Training with `model.fit`, our data, and our callbacks: resumed after an epoch, it ends with the same bits."""

import dataclasses
import pathlib
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest
from PIL import Image
from test_loop import At, data, log_of, recipe, tiny_model, weights_of  # noqa: F401

import se_keras
from se_keras.preprocessing import preprocessing_of
from se_keras.training import EvaluateAverage, KeepBest, SaveRun, StopEarly, fit_data, make_optimizer, train
from se_keras.training.figures import draw_curves
from se_keras.training.loop import _seed

GUIDE = pathlib.Path(__file__).parents[2] / "docs/transfer-learning.md"


def compiled(metrics=("accuracy",), optimizer="sgd"):
    """A model so small that an epoch takes no time."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="logits")(inputs))
    model.compile(optimizer, "categorical_crossentropy", weighted_metrics=list(metrics))
    return model


ROWS = np.eye(4, dtype="float32"), np.eye(2, dtype="float32")[[0, 1, 0, 1]]


def fit_rows(model, callbacks, **options):
    return model.fit(*ROWS, batch_size=2, callbacks=callbacks, verbose=0, **options)


def test_epochs_without_validation_are_empty_in_the_log(tmp_path):
    run = SaveRun(tmp_path)
    early = StopEarly(run, patience=9)
    fit_rows(compiled(), [run, KeepBest(run), early], epochs=5, validation_data=ROWS, validation_freq=2)
    rows = log_of(tmp_path)
    assert [*rows[0]] == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert [row["val_loss"] != "" for row in rows] == [False, True, False, True, False]
    assert (tmp_path / "best.keras").exists()
    draw_curves({"rows": run.progress.history}, tmp_path / "curves.png", title="rows")
    resumed = SaveRun(tmp_path)
    fit_rows(compiled(), [resumed], epochs=6, initial_epoch=resumed.epoch)
    assert len(log_of(tmp_path)) == 6


def test_only_validated_epochs_count_for_stopping_early(tmp_path):
    run = SaveRun(tmp_path)
    history = [{"val_accuracy": 0.5}, {}, {}, {"val_accuracy": 0.5}, {}]
    run.progress = dataclasses.replace(run.progress, history=tuple(history))
    assert StopEarly(run, patience=1).is_stale
    assert not StopEarly(run, patience=2).is_stale


@pytest.mark.parametrize("kind", [KeepBest, lambda run: StopEarly(run, patience=1)], ids=["best", "early"])
def test_callbacks_that_compare_say_what_is_missing(kind, tmp_path):
    run = SaveRun(tmp_path / "metric")
    with pytest.raises(ValueError, match=r"compares a metric named 'accuracy'; validation gave .*Compile the model"):
        fit_rows(compiled(metrics=()), [run, kind(run)], epochs=1, validation_data=ROWS)
    run = SaveRun(tmp_path / "data")
    with pytest.warns(UserWarning, match=r"had no effect, because no epoch was validated. Pass `validation_data`"):
        fit_rows(compiled(), [run, kind(run)], epochs=2)
    assert run.epoch == 2


def fit(model, images, folder, *, epochs=3, average=None, patience=9, others=()):
    plan = recipe(epochs, average=average)
    run = SaveRun(folder)
    arguments = fit_data(images, preprocessing_of(model), plan, start=(run.epoch, 0))
    model.compile(
        make_optimizer(plan, plan.phases[0], arguments["steps_per_epoch"]),
        "categorical_crossentropy",
        weighted_metrics=["accuracy"],
    )
    _seed(model, 0, 0)  # `train` seeds dropout by its own `seed`
    own = [run, KeepBest(run), *([EvaluateAverage()] if average else []), StopEarly(run, patience=patience)]
    model.fit(**arguments, epochs=epochs, callbacks=[*own, *others], verbose=0)
    return run


def fail(model):
    raise MemoryError("no room")


@pytest.mark.slow
@pytest.mark.parametrize("average", [None, 0.9])
def test_resumed_after_an_epoch_and_as_train_does(average, data, tmp_path):  # noqa: F811
    keras.utils.set_random_seed(0)
    model = tiny_model()
    expected = train(model, data, recipe(average=average), tmp_path / "expected", verbose=0)
    with pytest.raises(MemoryError):
        fit(tiny_model(), data, tmp_path / "run", average=average, others=[At(9, fail)])
    again = tiny_model()
    run = fit(again, data, tmp_path / "run", average=average)
    for a, b in zip(weights_of(model), weights_of(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert log_of(tmp_path / "run") == log_of(tmp_path / "expected")
    assert run.progress.best == expected.best
    best = keras.models.load_model(tmp_path / "run/best.keras")
    for a, b in zip(
        weights_of(keras.models.load_model(tmp_path / "expected/best.keras")), weights_of(best), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_stops_early_also_by_the_epochs_before_it_was_resumed(data, tmp_path):  # noqa: F811
    class Worse(keras.callbacks.Callback):
        def on_test_end(self, logs=None):
            logs["accuracy"] = 0.5

    worse = [Worse()]
    assert fit(tiny_model(), data, tmp_path / "run", epochs=2, others=worse).epoch == 2
    run = fit(tiny_model(), data, tmp_path / "run", epochs=6, patience=4, others=worse)
    assert StopEarly(run, patience=4).is_stale or run.epoch == 6
    with pytest.raises(ValueError, match="patience"):
        StopEarly(run, patience=0)


@pytest.mark.slow
def test_the_guide_runs(tmp_path, monkeypatch):
    """The part of the guide with our data and callbacks, on 80 photos and a small network."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    code = next(block for block in blocks if "SaveRun" in block)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(40):
            pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(se_keras, "SEResNet50", lambda classes: tiny_model(classes), raising=False)
    exec(code, {})
    exec(code, {})  # the run is complete, and is resumed without effect
    written = {path.name for path in (tmp_path / "runs/photos").iterdir()}
    assert {"best.keras", "log.csv", "state.safetensors"} <= written
    assert keras.models.load_model(tmp_path / "photos.keras").output_shape == (None, 2)


def test_a_state_of_another_optimizer_is_refused(tmp_path):
    run = SaveRun(tmp_path)
    fit_rows(compiled(optimizer="adam"), [run], epochs=1)
    for optimizer in (keras.optimizers.SGD(0.5), keras.optimizers.Adam(amsgrad=True)):
        with pytest.raises(ValueError, match=r"optimizer Adam, 6 variables, but the model is compiled with"):
            fit_rows(compiled(optimizer=optimizer), [SaveRun(tmp_path)], epochs=2)


def test_saved_models_have_no_optimizer(tmp_path):
    run, model = SaveRun(tmp_path), compiled(optimizer="adam")
    fit_rows(model, [run, KeepBest(run)], epochs=2, validation_data=ROWS)
    with zipfile.ZipFile(tmp_path / "best.keras") as archive, h5py.File(archive.open("model.weights.h5")) as weights:
        assert "optimizer" not in weights
    assert model.compiled
    assert int(model.optimizer.iterations) == 4
