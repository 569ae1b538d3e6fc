"""The classifiers: layers, names, dropout, and the dtype they end in."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from se_keras.blocks.head import average_head, classifier, output_dtype, vgg_head

OPTIONS = {"classes": 5, "activation": "softmax", "dropout": 0.5}


def build(head, shape=(4, 4, 8), **options):
    inputs = keras.Input(shape)
    return keras.Model(inputs, head(inputs, **{**OPTIONS, **options}))


def names(model):
    return [layer.name for layer in model.layers[1:]]


def test_average_head_equals_its_formula(rng):
    model = build(average_head, (None, None, 8))
    assert names(model) == ["pooled", "dropout", "logits", "predictions"]
    x = rng.normal(size=(2, 3, 5, 8)).astype("float32")
    kernel, bias = model.get_weights()
    logits = x.mean(axis=(1, 2)) @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, rtol=1e-5, atol=1e-6)


def test_vgg_head_has_two_dense_layers_and_two_dropouts():
    model = build(vgg_head)
    assert names(model) == ["flatten", "fc1", "fc1_dropout", "fc2", "pooled", "dropout", "logits", "predictions"]
    assert tuple(model.get_layer("fc1").kernel.shape) == (4 * 4 * 8, 4096)
    assert [layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize("head", [average_head, vgg_head])
def test_no_dropout_and_no_activation(head):
    model = build(head, dropout=0.0, activation=None)
    assert not [layer for layer in model.layers if isinstance(layer, layers.Dropout)]
    assert names(model)[-1] == "logits"


def test_classifier_works_on_vectors():
    assert build(classifier, (8,)).output_shape == (None, 5)


@pytest.mark.parametrize(
    ("policy", "dtype"),
    [
        ("float32", "float32"),
        ("mixed_float16", "float32"),
        ("mixed_bfloat16", "float32"),
        ("bfloat16", "float32"),
        ("float64", "float64"),
    ],
)
def test_outputs_are_float32_unless_the_policy_is_wider(policy, dtype):
    keras.config.set_dtype_policy(policy)
    assert output_dtype() == ("float32" if "16" in policy else None)
    assert build(average_head).output.dtype == dtype
    assert build(average_head, activation=None).output.dtype == dtype
