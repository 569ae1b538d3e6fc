"""Images are normalized by whole rows, with the same result."""

import keras
import numpy as np
import pytest
from keras import layers
from small_networks import answers

from se_keras.export.image_rows import RowNormalization, normalized_by_rows
from se_keras.export.model_ends import inputs_of
from se_keras.layers import ImagePreprocessing
from se_keras.surgery.graph import build_model, read_graph

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PIXELS = {"mean": [120.0, 110.0, 100.0], "variance": [3000.0, 2500.0, 3500.0]}


def network(layer, shape=(6, 8, 3)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.ReLU(max_value=1e9)(layer(inputs)))


def with_rows(model):
    return build_model(normalized_by_rows(read_graph(model)))


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(1).uniform(0, 255, (4, 6, 8, 3)))
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        lambda: ImagePreprocessing(mean=MEAN, std=STD),
        lambda: ImagePreprocessing(mean=MEAN, std=(1 / 255,) * 3),
        lambda: layers.Normalization(**PIXELS),
        adapted,
    ],
)
def test_output_and_range_of_inputs_stay(layer):
    model = network(layer())
    form = with_rows(model)
    assert type(form.layers[1]) is RowNormalization
    x = np.random.default_rng(0).uniform(0, 255, (2, 6, 8, 3)).astype("float32")
    np.testing.assert_allclose(answers(form, x), answers(model, x), rtol=1e-5, atol=1e-4)
    assert (inputs_of(form)[0].low, inputs_of(form)[0].high) == (0, 255)


def test_normalization_of_values_that_are_no_pixels():
    form = with_rows(network(layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.1, 0.2, 0.3])))
    assert type(form.layers[1]) is RowNormalization
    assert inputs_of(form)[0].high is None


def test_normalization_inside_a_nested_model():
    inputs = keras.Input((6, 8, 3))
    inner = network(layers.Normalization(**PIXELS))
    model = keras.Model(inputs, inner(inputs))
    form = with_rows(model)
    x = np.random.default_rng(0).uniform(0, 255, (2, 6, 8, 3)).astype("float32")
    np.testing.assert_allclose(answers(form, x), answers(model, x), rtol=1e-5, atol=1e-4)
    assert any(type(layer) is RowNormalization for layer in form._flatten_layers())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: ImagePreprocessing(mean=MEAN, std=STD), (None, None, 3)),
        (lambda: ImagePreprocessing(mean=MEAN, std=STD, data_format="channels_first"), (3, 6, 8)),
        (lambda: layers.Normalization(mean=[120.0], variance=[3000.0]), (6, 8, 1)),
        (lambda: layers.Normalization(invert=True, **PIXELS), (6, 8, 3)),
        (lambda: layers.Normalization(axis=1, mean=np.arange(6.0), variance=np.ones(6)), (6, 8, 3)),
        (lambda: layers.Normalization(axis=None, mean=120.0, variance=3000.0), (6, 8, 3)),
        (lambda: layers.Normalization(**PIXELS), (5, 3)),
    ],
)
def test_others_stay(layer, shape):
    form = with_rows(network(layer(), shape))
    assert not any(type(one) is RowNormalization for one in form.layers)
