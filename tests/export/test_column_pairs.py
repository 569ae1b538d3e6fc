"""Convolutions over pairs of columns compute the same."""

import keras
import numpy as np
import pytest
from keras import layers
from small_networks import answers

from se_keras.export.column_pairs import in_column_pairs
from se_keras.surgery.graph import build_model, read_graph


def network(*following, shape=(9, 8, 3)):
    inputs = x = keras.Input(shape)
    for layer in following:
        x = layer(x)
    return keras.Model(inputs, x)


def in_pairs(model):
    return build_model(in_column_pairs(read_graph(model)))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("padding", [0, 1, ((0, 1), (0, 1)), ((1, 0), (2, 3)), "same", "both"])
def test_same_outputs(size, padding):
    own = "same" if padding in ("same", "both") else "valid"
    convolution = layers.Conv2D(4, size, 2, padding=own, activation="relu", use_bias=size != 3)
    before = [layers.ZeroPadding2D(1 if padding == "both" else padding)] if padding != "same" else []
    model = network(*before, convolution, layers.Conv2D(2, 1))
    form = in_pairs(model)
    assert form.get_layer(convolution.name).kernel.shape[2] == 6
    x = np.random.default_rng(0).uniform(-1, 1, (2, 9, 8, 3)).astype("float32")
    np.testing.assert_allclose(answers(form, x), answers(model, x), atol=1e-6)


def test_image_may_have_other_readers():
    model = network(layers.ZeroPadding2D(1), layers.Conv2D(4, 3, 2))
    padded = model.layers[1].output
    model = keras.Model(model.input, [model.output, layers.ReLU()(padded), layers.ReLU()(model.input)])
    form = in_pairs(model)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 9, 8, 3)).astype("float32")
    for found, expected in zip(form(x), model(x), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.Conv2D(4, 3), (9, 8, 3)),
        (lambda: layers.Conv2D(4, 3, (2, 1)), (9, 8, 3)),
        (lambda: layers.Conv2D(4, 3, 2), (9, 7, 3)),
        (lambda: layers.Conv2D(4, 3, 2), (None, None, 3)),
        (lambda: layers.Conv2D(4, 3, 2), (9, 8, 4)),
        (lambda: layers.Conv2D(3, 3, 2, groups=3), (9, 8, 3)),
        (lambda: layers.DepthwiseConv2D(3, 2), (9, 8, 3)),
    ],
)
def test_others_stay(layer, shape):
    one = layer()
    form = in_pairs(network(one, shape=shape))
    assert not any(isinstance(other, layers.Reshape) for other in form.layers)


def test_shared_convolutions_stay():
    inputs, convolution = keras.Input((9, 8, 3)), layers.Conv2D(4, 3, 2)
    model = keras.Model(inputs, [convolution(inputs), convolution(layers.ReLU()(inputs))])
    assert not any(isinstance(other, layers.Reshape) for other in in_pairs(model).layers)
