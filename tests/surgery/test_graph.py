"""Any functional model is read, and built again, with the same answers."""

from __future__ import annotations

import keras
import pytest
from keras import layers, ops
from rewriting import actions, deployment, randomized, relative_difference

from se_keras.surgery import deploy
from se_keras.surgery.graph import build_model, read_graph
from se_keras.surgery.layer_facts import is_functional


def tower(name):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    return keras.Model(inputs, layers.BatchNormalization(name="bn")(x), name=name)


def two_inputs_two_outputs():
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((8, 8, 3), name="b")
    x = layers.Concatenate()([a, b])
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(x))
    return keras.Model([a, b], [x, layers.GlobalAveragePooling2D()(x)])


def nested():
    inputs = keras.Input((8, 8, 3))
    body = tower("body")
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(body(inputs, training=False)))


def nested_twice():
    """One tower on two inputs: its layers are shared."""
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    body = tower("body")
    return keras.Model([a, b], layers.Subtract()([body(a), body(b)]))


def nested_at_the_end():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, tower("body")(layers.Dropout(0.5)(inputs)))


def two_towers_with_equal_names():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Add()([tower("left")(inputs), tower("right")(inputs)]))


def sequential():
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()])


def operations():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs) * 2.0 + 1.0
    return keras.Model(inputs, ops.mean(ops.concatenate([x, -x], axis=-1), axis=(1, 2)))


def named_outputs():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model({"image": inputs}, {"map": x, "pooled": layers.GlobalMaxPooling2D()(x)})


GRAPHS = (
    two_inputs_two_outputs,
    nested,
    nested_twice,
    nested_at_the_end,
    two_towers_with_equal_names,
    sequential,
    operations,
)


@pytest.mark.parametrize("make", GRAPHS, ids=lambda make: make.__name__)
def test_read_and_built_again(make):
    model = randomized(make())
    again = build_model(read_graph(model))
    assert relative_difference(model, again) < 1e-6
    assert relative_difference(model, deploy(model)) < 1e-5


def test_structures_of_inputs_and_outputs_stay(rng):
    model = named_outputs()
    deployed = deploy(model)
    x = {"image": rng.normal(size=(2, 8, 8, 3)).astype("float32")}
    assert set(deployed(x)) == {"map", "pooled"}
    assert deployed.output["map"].shape == model.output["map"].shape


def test_nested_models_are_laid_open_and_folded():
    deployed, changes = deployment(randomized(nested()))
    assert actions(changes) == {"bn": "folded"}
    assert not any(isinstance(layer, keras.Model) for layer in deployed.layers)


def test_layers_of_a_model_called_twice_are_shared():
    _, changes = deployment(randomized(nested_twice()))
    assert {change.action for change in changes} == {"kept"}


def test_augmentation_goes_and_preprocessing_stays():
    inputs = keras.Input((8, 8, 3))
    x = layers.RandomFlip(name="flip")(inputs)
    x = layers.RandomRotation(0.1, name="rotation")(x)
    x = layers.Rescaling(1 / 255, name="rescaling")(x)
    model = keras.Model(inputs, layers.GaussianNoise(0.1, name="noise")(x))
    deployed, changes = deployment(model)
    assert actions(changes) == {"flip": "removed", "rotation": "removed", "noise": "removed"}
    assert [layer.name for layer in deployed.layers[1:]] == ["rescaling"]
    assert relative_difference(model, deployed) < 1e-6


def test_augmentation_that_changes_the_dtype_stays():
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(inputs, layers.RandomFlip(name="flip", dtype="float32")(inputs))
    deployed, _ = deployment(model)
    assert deployed.output.dtype == model.output.dtype


@pytest.mark.slow
@pytest.mark.parametrize("build", [keras.applications.MobileNetV2, keras.applications.ResNet50V2])
def test_networks_of_keras_applications(build):
    model = randomized(build(weights=None, input_shape=(64, 64, 3), classifier_activation=None))
    deployed, changes = deployment(model)
    assert list(actions(changes).values()).count("folded") > 30
    assert relative_difference(model, deployed) < 1e-4


def test_is_functional():
    assert is_functional(sequential())
    assert is_functional(nested())
    assert not is_functional(keras.Sequential([layers.Dense(2)]))
    assert not is_functional(layers.Dense(2))
