"""Counts may be integers of NumPy, as `labels.max() + 1` is one; what is kept of them can be saved."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

import se_keras
from se_keras.analysis import collect_gates
from se_keras.export import verify
from se_keras.layers import ChannelShuffle, ImagePreprocessing, SqueezeExcite
from se_keras.models.registry import NETWORKS
from se_keras.training.recipes import Phase, Recipe, get_recipe
from se_keras.training.run_folder import facts_of

TWO, EIGHT, THIRTY_TWO = np.int64(2), np.int32(8), np.uint16(32)


def plain(value):
    """Every number in a nested configuration, which must be one of Python's."""
    json.dumps(value, default=lambda other: pytest.fail(f"{type(other)} is not for JSON: {other!r}"))


def test_builder_takes_them_and_its_model_can_be_saved(tmp_path):
    labels = np.array([0, 1, 2])
    model = se_keras.SEResNet20(
        classes=labels.max() + 1,
        input_shape=(THIRTY_TWO, THIRTY_TWO, np.int8(3)),
        se=se_keras.SEConfig(reduction=EIGHT, squeeze_divisor=TWO, stages=np.array([2, 3])),
    )
    assert model.output_shape == (None, 3)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").output_shape == (None, 3)
    assert "int64" not in model.to_json()
    assert "uint16" not in model.to_json()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_builder_counts_in_plain_numbers(name, monkeypatch):
    """Up to the network itself, which would take minutes to build for all."""
    seen = {}

    def head(x, *, classes, activation, dropout):
        seen["classes"] = classes
        return x

    network = dataclasses.replace(NETWORKS[name], skeleton=lambda x, spec, se: seen.update(se=se) or x, head=head)
    monkeypatch.setitem(NETWORKS, name, network)
    size = np.int64(network.preprocessing.height_width[0])
    model = se_keras.create_model(
        name, classes=np.int64(7), input_shape=(size, size, 3), se=se_keras.SEConfig(reduction=EIGHT)
    )
    assert type(seen["classes"]) is type(seen["se"].reduction) is int
    assert {type(side) for side in model.input_shape[1:]} == {int}
    for wrong in (np.float32(7), np.bool_(True), True, 7.0):
        with pytest.raises(ValueError, match="`classes` must be an integer of at least 1"):
            se_keras.create_model(name, classes=wrong)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: SqueezeExcite(reduction=TWO, squeeze_channels=EIGHT),
        lambda: ChannelShuffle(TWO),
        lambda: ImagePreprocessing(mean=(0.5,), std=(0.5,), size=THIRTY_TWO),
        lambda: ImagePreprocessing(mean=(0.5,), std=(0.5,), size=(THIRTY_TWO, EIGHT)),
    ],
)
def test_layers_keep_plain_numbers(layer):
    plain(keras.saving.serialize_keras_object(layer()))


def test_records_keep_plain_numbers():
    plain(dataclasses.asdict(se_keras.SEConfig(reduction=EIGHT, squeeze_divisor=TWO, stages=np.array([2, 3]))))
    plain(dataclasses.asdict(se_keras.Preprocessing(size=(THIRTY_TWO, EIGHT))))
    assert se_keras.Preprocessing(size=THIRTY_TWO).height_width == (32, 32)
    phase = Phase(epochs=TWO, learning_rate=np.float32(0.5), step_epochs=EIGHT)
    own = Recipe(name="own", phases=(phase,), batch_size=EIGHT, label_smoothing=np.float64(0.5), source="here")
    for recipe in (own, get_recipe("cifar").with_epochs(EIGHT).with_batch_size(THIRTY_TWO)):
        assert {type(number) for number in (recipe.batch_size, recipe.epochs)} == {int}


def test_facts_of_a_run_are_for_json():
    phase = Phase(epochs=TWO, learning_rate=np.float32(0.5))
    recipe = Recipe(name="own", phases=(phase,), batch_size=EIGHT, label_smoothing=np.float64(0.5), source="here")
    sample = se_keras.training.load_sample()
    source = se_keras.training.sources.ArraySource(sample.x_test[:8], sample.y_test[:8], sample.class_names)
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    plain(facts_of(model, se_keras.training.sources.Data("own", source, source), recipe, 0, {}))


def test_functions_take_them():
    images = np.zeros((4, 32, 32, 3), "uint8")
    gates = collect_gates(se_keras.SEResNet20(), images, batch_size=TWO, bins=EIGHT, samples=TWO)
    assert gates.images == 4
    rows = se_keras.decode_predictions([[0.5, 0.25, 0.25]], TWO, class_names=["a", "b", "c"])
    assert len(rows[0]) == 2


@pytest.mark.parametrize(("name", "least"), [("most_images", 1), ("threads", 1), ("gpu_images", 0), ("repeats", 0)])
def test_verify_takes_them_and_refuses_others(name, least, tmp_path):
    with pytest.raises(ValueError, match=rf"`{name}` must be an integer of at least {least}; received {name}=0\.5"):
        verify(tmp_path / "gone.tflite", **{name: 0.5})
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "gone.tflite", **{name: np.int64(least)})
