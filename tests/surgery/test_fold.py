"""Batch norm goes into every kind of layer it can go into, exactly, and into no other."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from rewriting import actions, deployment, randomized, relative_difference

from se_keras.layers import GroupedConv2D
from se_keras.surgery import calls, deploy, find_changes, graph
from se_keras.surgery.calls import recorded_training_holds

IMAGE, SEQUENCE, VOLUME = (8, 7, 6), (9, 6), (5, 4, 3, 6)
FOLDABLE = {
    "conv1d": (SEQUENCE, lambda: layers.Conv1D(4, 3)),
    "conv2d": (IMAGE, lambda: layers.Conv2D(4, 3, use_bias=False)),
    "conv2d_bias": (IMAGE, lambda: layers.Conv2D(4, 3, strides=2, padding="same")),
    "conv2d_dilated": (IMAGE, lambda: layers.Conv2D(4, 3, dilation_rate=2)),
    "conv2d_linear": (IMAGE, lambda: layers.Conv2D(4, 3, activation="linear")),
    "conv3d": (VOLUME, lambda: layers.Conv3D(4, 2)),
    "grouped": (IMAGE, lambda: GroupedConv2D(4, 3, groups=2)),
    "depthwise": (IMAGE, lambda: layers.DepthwiseConv2D(3)),
    "depthwise_multiplier": (IMAGE, lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)),
    "depthwise1d": (SEQUENCE, lambda: layers.DepthwiseConv1D(3, depth_multiplier=3)),
    "separable": (IMAGE, lambda: layers.SeparableConv2D(4, 3)),
    "separable1d": (SEQUENCE, lambda: layers.SeparableConv1D(4, 3, use_bias=False)),
    "transposed": (IMAGE, lambda: layers.Conv2DTranspose(4, 3, strides=2)),
    "transposed1d": (SEQUENCE, lambda: layers.Conv1DTranspose(4, 3, use_bias=False)),
    "transposed3d": (VOLUME, lambda: layers.Conv3DTranspose(4, 2)),
    "dense": ((6,), lambda: layers.Dense(4)),
    "dense_on_maps": (IMAGE, lambda: layers.Dense(4, use_bias=False)),
}


def model_of(shape, *steps):
    inputs = keras.Input(shape)
    x = inputs
    for step in steps:
        x = step(x)
    return randomized(keras.Model(inputs, x))


@pytest.mark.parametrize("kind", FOLDABLE)
def test_folded(kind):
    shape, make = FOLDABLE[kind]
    model = model_of(shape, make(), layers.BatchNormalization(name="bn"), layers.ReLU())
    deployed, changes = deployment(model)
    assert actions(changes) == {"bn": "folded"}
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in deployed.layers)
    assert relative_difference(model, deployed) < 1e-5


@pytest.mark.parametrize(("center", "scale"), [(True, False), (False, True), (False, False)])
def test_norms_without_shift_or_scale(center, scale):
    norm = layers.BatchNormalization(center=center, scale=scale, epsilon=0.1)
    model = model_of(IMAGE, layers.Conv2D(4, 3, use_bias=False), norm)
    assert relative_difference(model, deploy(model)) < 1e-5


@pytest.mark.parametrize(
    "between",
    [
        layers.Identity(),
        layers.Dropout(0.5),
        layers.Activation("linear"),
        layers.Cropping2D(1),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.AveragePooling2D(2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_folded_through_what_is_affine_at_every_position(between):
    model = model_of(IMAGE, layers.Conv2D(4, 3), between, layers.BatchNormalization(name="bn"))
    deployed, changes = deployment(model)
    assert actions(changes)["bn"] == "folded"
    assert relative_difference(model, deployed) < 1e-5


def test_folded_through_zero_padding_only_without_a_shift():
    steps = (layers.Conv2D(4, 3), layers.ZeroPadding2D(1))
    shifting = model_of(IMAGE, *steps, layers.BatchNormalization(name="bn"))
    deployed, changes = deployment(shifting)
    assert "shift the zeros that are padded" in next(change.detail for change in changes if change.layer == "bn")
    assert relative_difference(shifting, deployed) < 1e-5

    still = model_of(IMAGE, layers.Conv2D(4, 3), layers.ZeroPadding2D(1), layers.BatchNormalization(name="bn"))
    norm = still.get_layer("bn")
    norm.moving_mean.assign(norm.moving_mean * 0)
    norm.beta.assign(norm.beta * 0)
    deployed, changes = deployment(still)
    assert actions(changes) == {"bn": "folded"}
    assert relative_difference(still, deployed) < 1e-5


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (lambda: [layers.Conv2D(4, 3, activation="relu")], "has its own activation"),
        (lambda: [layers.Conv2D(4, 3), layers.ReLU()], "precedes it"),
        (lambda: [layers.Conv2D(4, 3), layers.AveragePooling2D(2, padding="same")], "precedes it"),
        (lambda: [layers.Conv2D(4, 3), layers.MaxPooling2D(2)], "precedes it"),
        (list, "model's input"),
    ],
)
def test_kept_with_the_reason(steps, reason):
    model = model_of(IMAGE, *steps(), layers.BatchNormalization(name="bn"))
    deployed, changes = deployment(model)
    assert actions(changes)["bn"] == "kept"
    assert reason in changes[-1].detail
    assert relative_difference(model, deployed) < 1e-5


def test_norm_of_another_axis_stays():
    model = model_of(IMAGE, layers.Conv2D(4, 3), layers.BatchNormalization(axis=1, name="bn"))
    deployed, changes = deployment(model)
    assert "does not normalize the channel axis" in changes[0].detail
    assert relative_difference(model, deployed) < 1e-5


def test_output_used_twice_stays():
    inputs = keras.Input(IMAGE)
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    model = randomized(keras.Model(inputs, [layers.BatchNormalization(name="bn")(x), x]))
    deployed, changes = deployment(model)
    assert changes[0].detail == "the output of 'conv' is also used elsewhere"
    assert relative_difference(model, deployed) < 1e-5


@pytest.mark.parametrize("shared", ["conv", "bn"])
def test_shared_layers_stay(shared):
    inputs = keras.Input((8, 7, 4))
    conv, norm = layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization()
    other_conv = conv if shared == "conv" else layers.Conv2D(4, 3, padding="same")
    other_norm = norm if shared == "bn" else layers.BatchNormalization()
    model = randomized(keras.Model(inputs, layers.Add()([norm(conv(inputs)), other_norm(other_conv(inputs))])))
    deployed, changes = deployment(model)
    assert all("shared" in change.detail for change in changes)
    assert relative_difference(model, deployed) < 1e-5


def recorded_training_mode():
    inputs = keras.Input(IMAGE)
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3)(inputs), training=True)
    frozen = layers.BatchNormalization(name="frozen", trainable=False)  # does not train, whatever the mode
    x = frozen(layers.Conv2D(4, 3)(x), training=True)
    return randomized(keras.Model(inputs, layers.Dropout(0.5, name="dropout")(x, training=True)))


def recorded_training_mode_of_a_nested_model():
    inputs, inside = keras.Input(IMAGE), keras.Input(IMAGE)
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3)(inside))
    x = layers.BatchNormalization(name="frozen")(layers.Conv2D(4, 3)(x), training=False)
    body = keras.Model(inside, layers.Dropout(0.5, name="dropout")(x))
    return randomized(keras.Model(inputs, body(inputs, training=True)))


@pytest.mark.parametrize("holds", [True, False])
def test_a_recorded_training_mode_is_respected_where_keras_does(holds, monkeypatch):
    for module in (calls, graph):
        monkeypatch.setattr(module, "recorded_training_holds", lambda: holds)
    _, changes = deployment(recorded_training_mode())
    kept = {"bn": "kept", "frozen": "folded", "dropout": "kept"}
    assert actions(changes) == (kept if holds else {"bn": "folded", "frozen": "folded", "dropout": "removed"})
    assert all("training=True" in change.detail for change in changes if change.action == "kept")


@pytest.mark.parametrize("make", [recorded_training_mode, recorded_training_mode_of_a_nested_model])
def test_answers_stay_whatever_keras_makes_of_a_recorded_training_mode(make):
    model = make()
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    assert relative_difference(model, deploy(model)) < 1e-5
    assert recorded_training_holds() == (actions(find_changes(model))["bn"] == "kept")


def test_two_norms_in_a_row():
    model = model_of(IMAGE, layers.Conv2D(4, 3), layers.BatchNormalization(), layers.BatchNormalization())
    deployed, changes = deployment(model)
    assert [change.action for change in changes] == ["folded", "kept"]
    assert relative_difference(model, deployed) < 1e-5


def test_small_variances_are_folded_in_double_precision():
    model = model_of(IMAGE, layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(epsilon=1e-5))
    norm = model.layers[-1]
    norm.moving_variance.assign(np.full(4, 1e-12))
    norm.moving_mean.assign(np.full(4, 1e-3))
    assert relative_difference(model, deploy(model)) < 1e-4


@pytest.mark.slow
def test_channels_first(run_warm):
    pytest.importorskip("jax")
    run_warm(
        """
        import keras
        from keras import layers
        from rewriting import actions, deployment, randomized, relative_difference
        from se_keras import SqueezeExcite

        keras.config.set_image_data_format("channels_first")
        inputs = keras.Input((6, 8, 7))
        x = layers.Conv2D(12, 1, name="conv")(inputs)
        x = layers.BatchNormalization(axis=1, name="bn")(x)
        model = randomized(keras.Model(inputs, SqueezeExcite(4, name="se")(x)))
        deployed, changes = deployment(model)
        assert actions(changes) == {"bn": "folded", "se": "hoisted"}, changes
        assert relative_difference(model, deployed) < 1e-5
        """,
        "jax",
    )
