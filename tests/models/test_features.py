"""feature_extractor finds endpoints by name, shares the weights, and says what it does not know."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import se_keras
from se_keras import feature_extractor


def test_outputs_are_those_of_the_named_layers(rng):
    model = se_keras.SEResNet20()
    x = rng.integers(0, 256, size=(2, 32, 32, 3)).astype("uint8")
    names = ["stem", "stage2", "stage2_block3_se", "pooled", "logits", "predictions"]
    features = feature_extractor(model, names)(x)
    assert list(features) == names
    np.testing.assert_array_equal(ops.convert_to_numpy(features["predictions"]), ops.convert_to_numpy(model(x)))
    pooled = ops.convert_to_numpy(feature_extractor(model)(x)["stage4"]).mean((1, 2))
    np.testing.assert_allclose(ops.convert_to_numpy(features["pooled"]), pooled, rtol=1e-5, atol=1e-6)


def test_default_is_every_stage_and_the_weights_are_shared():
    model = se_keras.SEResNet20()
    features = feature_extractor(model)
    assert list(features.output) == ["stage2", "stage3", "stage4"]
    assert features.name == "se_resnet20_features"
    ours = {id(weight) for weight in model.weights}
    assert all(id(weight) in ours for weight in features.weights)


def test_takes_a_plain_array_and_predicts(rng):
    # One input is a tensor, not a list of one: Keras warns about the difference, and warnings are errors here.
    features = feature_extractor(se_keras.SEResNet20(), ["stage3"])
    assert features.input_shape == (None, 32, 32, 3)
    assert features.predict(np.zeros((2, 32, 32, 3), "uint8"), verbose=0)["stage3"].shape == (2, 16, 16, 32)


def test_any_functional_model_with_named_layers():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(2, name="b")(layers.Dense(3, name="a")(inputs)))
    assert feature_extractor(model, ["a"]).output["a"].shape == (None, 3)
    with pytest.raises(ValueError, match=r"has no layers named stage2, stage3, .*Name the layers .* with `endpoints`"):
        feature_extractor(model)


def photo_classifiers(base):
    """The ways in which Keras' guides put a network into a model of one's own."""
    yield keras.Sequential([keras.Input((32, 32, 3)), base, layers.Dense(5, name="own")])
    inputs = keras.Input((32, 32, 3))
    x = base(layers.RandomFlip()(inputs), training=False)
    yield keras.Model(inputs, layers.Dense(5, name="own")(x))
    yield keras.Sequential([keras.Input((32, 32, 3)), keras.Sequential([base]), layers.Dense(5, name="own")])


def test_layers_of_a_nested_network(rng):
    base = se_keras.SEResNet20(include_top=False, pooling="avg", input_shape=(32, 32, 3))
    x = rng.integers(0, 256, size=(2, 32, 32, 3)).astype("uint8")
    expected = ops.convert_to_numpy(feature_extractor(base)(x)["stage4"])
    for model in photo_classifiers(base):
        answer = ops.convert_to_numpy(model(x, training=False))
        assert list(feature_extractor(model).output) == ["stage2", "stage3", "stage4"]
        features = feature_extractor(model, ["own", "stage4", base.name])
        outputs = {name: ops.convert_to_numpy(tensor) for name, tensor in features(x, training=False).items()}
        np.testing.assert_allclose(outputs["stage4"], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(outputs[base.name], expected.mean((1, 2)), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(outputs["own"], answer, rtol=1e-5, atol=1e-5)
        assert {id(weight) for weight in features.weights} <= {id(weight) for weight in model.weights}


def test_unknown_endpoint_is_refused_with_the_closest():
    with pytest.raises(ValueError, match=r"Unknown endpoint 'stage22'\. Did you mean 'stage2' or "):
        feature_extractor(se_keras.SEResNet20(), ["stage22"])
