"""`pointwise_to_dense` computes the same with dense layers, and leaves alone what is no product."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from cases import NEWER_QUICK, networks, smallest_size
from keras import layers
from rewriting import randomized, relative_difference

import se_keras
from se_keras.surgery import deploy, pointwise_to_dense


def kinds(model):
    return {layer.name: type(layer) for layer in model.layers}


@pytest.mark.parametrize(
    "name", networks(("se_resnet50", "se_resnext50", "mobilenetv3_small_050", "regnety_002"), NEWER_QUICK)
)
def test_networks_compute_the_same(name):
    shape = (smallest_size(name), smallest_size(name), 3)
    model = randomized(se_keras.create_model(name, weights=None, input_shape=shape, classifier_activation=None))
    deployed = deploy(model)
    dense = pointwise_to_dense(deployed)
    assert relative_difference(deployed, dense) < 1e-4
    assert dense.count_params() == deployed.count_params()
    left = [layer for layer in dense.layers if type(layer) is layers.Conv2D and layer.kernel_size == (1, 1)]
    assert all(layer.strides != (1, 1) or layer.groups > 1 for layer in left)


def test_networks_before_deploy_stay_trainable_and_load_again(tmp_path):
    model = randomized(se_keras.create_model("se_resnet20", weights=None))
    dense = pointwise_to_dense(model)
    assert relative_difference(model, dense) < 1e-5
    assert len(dense.trainable_variables) == len(model.trainable_variables)
    dense.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert relative_difference(dense, again) == 0


def test_only_plain_products_change():
    shared = layers.Conv2D(4, 1, activation="relu", name="shared")
    inputs = keras.Input((8, 8, 4))
    x = layers.Add(name="sum")([shared(inputs), shared(layers.ReLU(name="relu")(inputs))])
    x = layers.Conv2D(4, 1, strides=2, name="strided")(x)
    x = layers.Conv2D(4, 1, groups=2, name="grouped")(x)
    x = layers.Conv2D(4, 1, kernel_constraint="max_norm", name="constrained")(x)
    x = layers.Conv2D(4, 3, name="wide")(x)
    frozen = layers.Conv2D(4, 1, kernel_regularizer="l2", name="frozen")
    frozen.trainable = False
    inner = keras.Sequential([keras.Input((2, 2, 4)), layers.Conv2D(3, 1, name="inside")], name="inner")
    model = randomized(keras.Model(inputs, inner(frozen(x))))
    dense = pointwise_to_dense(model)
    assert relative_difference(model, dense) < 1e-5
    found = kinds(dense)
    changed = [name for name, kind in found.items() if kind is layers.Dense]
    assert sorted(changed) == ["frozen", "inside", "shared"]
    assert not dense.get_layer("frozen").trainable
    assert isinstance(dense.get_layer("frozen").kernel_regularizer, keras.regularizers.L2)
    assert np.ndim(dense.get_layer("shared").kernel) == 2


def test_sequences_and_policies_are_kept():
    inputs = keras.Input((8, 4))
    x = layers.Conv1D(6, 1, dtype="mixed_bfloat16", name="product")(inputs)
    model = randomized(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)))
    layer = pointwise_to_dense(model).get_layer("product")
    assert type(layer) is layers.Dense
    assert layer.dtype_policy.name == "mixed_bfloat16"


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="a convolution on a CPU must be channels last")
def test_channels_first_stays():
    inputs = keras.Input((4, 8, 8))
    model = keras.Model(inputs, layers.Conv2D(2, 1, data_format="channels_first", name="first")(inputs))
    assert kinds(pointwise_to_dense(model))["first"] is layers.Conv2D


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_masked_sequences_stay():
    inputs = keras.Input((6,))
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    shared = layers.Conv1D(4, 1, name="shared")
    x = layers.Conv1D(4, 1, name="after")(shared(shared(x)))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    dense = pointwise_to_dense(model)
    tokens = np.array([[3, 4, 5, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    np.testing.assert_allclose(model(tokens), dense(tokens), rtol=1e-5, atol=1e-6)
    assert kinds(dense)["shared"] is layers.Conv1D  # as its first call takes a mask
    assert kinds(dense)["after"] is layers.Dense
