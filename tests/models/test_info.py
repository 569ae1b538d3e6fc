"""model_info counts by hand-checkable rules, on any model with one input, and prints a table."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

import se_keras
from se_keras import ModelInfo, SqueezeExcite, model_info


def count(*stack, shape=(8, 8, 4)):
    return model_info(keras.Sequential([keras.Input(shape), *stack])).total


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (layers.Conv2D(5, 3, padding="same"), (8, 8, 4), 8 * 8 * 3 * 3 * 4 * 5),
        (layers.Conv2D(5, 3, strides=2), (8, 8, 4), 3 * 3 * 3 * 3 * 4 * 5),
        (layers.Conv2D(8, 3, padding="same", groups=2), (8, 8, 4), 8 * 8 * 3 * 3 * 2 * 8),
        (layers.Conv2D(8, 3, padding="same", dilation_rate=2), (8, 8, 4), 8 * 8 * 3 * 3 * 4 * 8),
        (se_keras.layers.GroupedConv2D(8, 3, padding="same", groups=4), (8, 8, 4), 8 * 8 * 3 * 3 * 1 * 8),
        (layers.DepthwiseConv2D(3, padding="same"), (8, 8, 4), 8 * 8 * 3 * 3 * 4),
        (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), (8, 8, 4), 8 * 8 * 3 * 3 * 4 * 2),
        (layers.SeparableConv2D(6, 3, padding="same"), (8, 8, 4), 8 * 8 * (3 * 3 * 4 + 4 * 6)),
        (layers.Conv2DTranspose(5, 3, strides=2, padding="same"), (8, 8, 4), 8 * 8 * 3 * 3 * 4 * 5),
        (layers.Conv1D(5, 3, padding="same"), (8, 4), 8 * 3 * 4 * 5),
        (layers.Conv3D(5, 3, padding="same"), (4, 4, 4, 2), 64 * 27 * 2 * 5),
        (layers.DepthwiseConv1D(3, padding="same"), (8, 4), 8 * 3 * 4),
    ],
)
def test_multiply_adds_of_a_convolution(layer, shape, macs):
    cost = count(layer, shape=shape)
    assert (cost.conv_macs, cost.dense_macs, cost.se_macs, cost.macs) == (macs, 0, 0, macs)
    assert cost.parameters == cost.trainable == layer.count_params()


def test_multiply_adds_of_dense_and_se_layers():
    cost = count(SqueezeExcite(2), layers.GlobalAveragePooling2D(), layers.Dense(3))
    assert (cost.se_macs, cost.dense_macs, cost.conv_macs) == (2 * 4 * 2, 4 * 3, 0)
    assert cost.macs == 16 + 12
    assert cost.parameters == (4 * 2 + 2 + 2 * 4 + 4) + (4 * 3 + 3)
    # A dense layer on a map is applied at every position.
    assert count(layers.Dense(3)).dense_macs == 8 * 8 * 4 * 3


def test_what_is_not_multiplied_costs_nothing():
    cost = count(layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D())
    assert (cost.macs, cost.parameters, cost.trainable) == (0, 16, 8)


def test_frozen_layers_are_not_trainable():
    model = se_keras.SEResNet20()
    model.get_layer("logits").trainable = False
    info = model_info(model)
    assert info.total.trainable == 274_847 - 650
    assert info.stages["head"].trainable == 0
    assert info.stages["head"].parameters == 650


def test_layer_used_twice_is_counted_once():
    shared = layers.Conv2D(4, 3, padding="same")
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, shared(shared(inputs)))
    assert model_info(model).total.parameters == shared.count_params()


def test_open_sizes_are_counted_at_224_or_as_told():
    model = se_keras.SEResNet20(input_shape=(None, None, 3))
    assert model_info(model).input_shape == (224, 224, 3)
    fixed = model_info(se_keras.SEResNet20(input_shape=(48, 32, 3)))
    told = model_info(model, (48, 32, 3))
    assert told.input_shape == (48, 32, 3)
    assert told.total == fixed.total
    assert told.stages == fixed.stages
    assert model.input_shape == (None, None, None, 3), "the model itself must stay as it is"


def test_nested_model_is_looked_into():
    network = se_keras.SEResNet20(include_top=False, pooling="avg", input_shape=(32, 32, 3))
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, layers.Dense(5, name="mine")(network(inputs)))
    inner, outer = model_info(network), model_info(model)
    assert outer.total.conv_macs == inner.total.conv_macs
    assert outer.total.parameters == inner.total.parameters + 64 * 5 + 5
    assert outer.se_blocks == inner.se_blocks == 9
    assert outer.stages["other"].dense_macs == 64 * 5


def test_nested_model_of_open_size_is_counted_at_the_outer_size():
    network = se_keras.SEResNet20(include_top=False, pooling="avg")
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, layers.Dense(5, name="mine")(network(inputs)))
    assert model_info(model).total.conv_macs == model_info(se_keras.SEResNet20()).total.conv_macs


def test_sequential_model_and_unnamed_stages():
    info = model_info(keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(4, 1)], name="mine"))
    assert list(info.stages) == ["other"]
    assert info.name == "mine"


def test_table_shows_every_stage_and_the_total():
    lines = str(model_info(se_keras.SEResNet20())).split("\n")
    assert lines[0] == "se_resnet20: input 32x32x3, 9 SE blocks"
    assert lines[1].split() == ["stage", "parameters", "trainable", "MMACs", "of", "which", "SE"]
    assert [line.split()[0] for line in lines[2:]] == ["stem", "stage2", "stage3", "stage4", "head", "total"]
    assert lines[-1].split() == ["total", "276,415", "274,847", "40.82", "0.002"]
    assert len({len(line) for line in lines[1:]}) == 1, "the columns do not line up"


def test_as_dict_is_ready_for_json():
    info = model_info(se_keras.SEResNet20())
    assert isinstance(info, ModelInfo)
    again = json.loads(json.dumps(info.as_dict()))
    assert again["total"]["trainable"] == 274_847
    assert sum(stage["conv_macs"] for stage in again["stages"].values()) == info.total.conv_macs
    assert again["input_shape"] == [32, 32, 3]


@pytest.mark.parametrize("shape", [(64, 64, 3), (32, 32, 1), (32, 32), (None, 32, 3)])
def test_input_shape_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"`input_shape` must fit the model's \(32, 32, 3\); received \("):
        model_info(se_keras.SEResNet20(), shape)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def test_other_models_are_refused():
    two = [keras.Input((2,), name="a"), keras.Input((2,), name="b")]
    for model in (Subclassed(), keras.Model(two, layers.Add()(two))):
        with pytest.raises(ValueError, match=r"built functional or sequential model with one input; received <"):
            model_info(model)


def test_counting_does_not_change_the_model(rng):
    model = se_keras.SEResNet20(input_shape=(None, None, 3))
    before = model.get_weights()
    model_info(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
