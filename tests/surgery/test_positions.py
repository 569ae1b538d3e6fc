"""The places that `where="auto"` finds in networks of many designs, each hand-written and as small as it can be."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops
from rewriting import randomized

from se_keras import SqueezeExcite, insert_squeeze_excite
from se_keras.surgery import find_positions

IMAGE = (16, 16, 3)


def channels(x):
    return x.shape[axis()]


def axis():
    return 1 if keras.config.image_data_format() == "channels_first" else 3


def image():
    return keras.Input(IMAGE if axis() == 3 else (3, 16, 16))


def unit(x, filters, name, *, size=3, strides=1, activation=True):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(axis=axis(), name=f"{name}_bn")(x)
    return layers.ReLU(name=name)(x) if activation else x


def cheap(x, name, *, activation=True):
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(axis=axis(), name=f"{name}_bn")(x)
    return layers.ReLU(name=name)(x) if activation else x


def classifier(x):
    return layers.Dense(3, name="head")(layers.GlobalAveragePooling2D(name="pool")(x))


def squeeze_excite(x, name):
    """Ordinary layers, as people write them."""
    shape = (channels(x), 1, 1) if axis() == 1 else (1, 1, channels(x))
    z = layers.Reshape(shape)(layers.GlobalAveragePooling2D()(x))
    z = layers.Conv2D(2, 1, activation="relu")(z)
    return layers.Multiply(name=name)([x, layers.Conv2D(channels(x), 1, activation="sigmoid")(z)])


def sliced(x, start, end):
    return x[:, start:end] if axis() == 1 else x[..., start:end]


# U-Nets.


def attention_gate(skip, signal, name, *, strides=1):
    """Of Attention U-Net (arXiv 1804.03999), figure 2; the authors' gate has half the resolution of the skip."""
    theta = layers.Conv2D(8, strides, strides, name=f"{name}_theta")(skip)
    both = layers.ReLU()(layers.Add(name=f"{name}_add")([theta, layers.Conv2D(8, 1, name=f"{name}_phi")(signal)]))
    gates = layers.Conv2D(1, 1, activation="sigmoid", name=f"{name}_psi")(both)
    gates = layers.UpSampling2D(strides)(gates) if strides > 1 else gates
    return layers.Multiply(name=f"{name}_gated")([skip, gates])


def u_net(*, gate=None, residual=False):
    inputs = x = image()
    skips = []
    for number, filters in enumerate((8, 12)):
        x = unit(x, filters, f"down{number}")
        if residual:
            branch = unit(x, filters, f"branch{number}", activation=False)
            x = layers.ReLU()(layers.Add(name=f"add{number}")([x, branch]))
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = unit(x, 16, "bottom")
    for number, filters in ((1, 12), (0, 8)):
        skip, low = skips[number], x
        x = layers.Conv2DTranspose(filters, 2, 2, name=f"up{number}")(x)
        if gate is not None:
            skip = attention_gate(skip, x if gate == 1 else low, f"gate{number}", strides=gate)
        x = layers.Concatenate(axis=axis(), name=f"skip{number}")([skip, x])
        x = unit(unit(x, filters, f"decoder{number}a"), filters, f"decoder{number}b")
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x))


PLAIN_U_NET = ["down0", "down1", "bottom", "decoder1a", "decoder1b", "decoder0a", "decoder0b"]


def attention_u_net():
    return u_net(gate=1)


def attention_u_net_of_the_authors():
    return u_net(gate=2)


def residual_u_net():
    return u_net(residual=True)


def residual_attention_u_net():
    return u_net(residual=True, gate=2)


def u_net_of_the_tutorial():
    """As in TensorFlow's tutorial: a backbone's maps, and one transposed convolution per stage."""
    body = u_net(residual=True)
    maps = [body.get_layer(name).output for name in ("add0", "add1", "bottom")]
    down = keras.Model(body.inputs, maps, name="down")
    inputs = image()
    first, second, x = down(inputs)
    for number, skip in ((1, second), (0, first)):
        steps = [layers.Conv2DTranspose(8, 3, 2, padding="same"), layers.BatchNormalization(axis=axis())]
        x = keras.Sequential([*steps, layers.ReLU(name="act")], name=f"up{number}")(x)
        x = layers.Concatenate(axis=axis())([x, skip])
    return keras.Model(inputs, layers.Conv2D(3, 3, padding="same", name="last")(x))


def resized_first():
    """Small images, enlarged for a network: its stem is no decoder."""
    inputs = image()
    x = unit(layers.UpSampling2D(2)(inputs), 8, "stem")
    return keras.Model(inputs, classifier(layers.Add(name="add")([x, unit(x, 8, "a", activation=False)])))


def deep_supervision():
    """A decoder without skips, whose map is also an output."""
    inputs = image()
    x = unit(inputs, 8, "stem", strides=2)
    x = layers.Add(name="add")([x, unit(x, 8, "a", activation=False)])
    wide = unit(layers.UpSampling2D()(x), 8, "up")
    return keras.Model(inputs, [layers.Conv2D(1, 1, name="mask")(wide), wide])


# CBAM (arXiv 1807.06521): gates per channel, from two squeezes, and then per position.


def cbam(x, name):
    dense = layers.Dense(2, activation="relu", name=f"{name}_reduce"), layers.Dense(channels(x), name=f"{name}_expand")
    squeezes = layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)
    gates = layers.Add(name=f"{name}_sum")([dense[1](dense[0](z)) for z in squeezes])
    gates = layers.Activation("sigmoid", name=f"{name}_channel_gates")(gates)
    x = layers.Multiply(name=f"{name}_channels")([x, layers.Reshape((1, 1, channels(x)))(gates)])
    pair = [ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)]
    mask = layers.Concatenate(name=f"{name}_pair")(pair)
    mask = layers.Conv2D(1, 7, padding="same", activation="sigmoid", name=f"{name}_mask")(mask)
    return layers.Multiply(name=f"{name}_positions")([x, mask])


def cbam_after_convolutions():
    inputs = image()
    x = layers.MaxPooling2D()(cbam(unit(inputs, 8, "a"), "first"))
    return keras.Model(inputs, classifier(unit(cbam(unit(x, 8, "b"), "second"), 8, "c")))


def cbam_in_residual_branches():
    inputs = image()
    x = unit(inputs, 8, "stem")
    branch = cbam(unit(x, 8, "a", activation=False), "cbam")
    return keras.Model(inputs, classifier(layers.Add(name="add")([x, branch])))


# GhostNet (arXiv 1911.11907 and 2211.12905).


def ghost(x, filters, name, *, activation=True, attention=False):
    primary = unit(x, filters // 2, f"{name}_primary", size=1, activation=activation)
    features = [primary, cheap(primary, f"{name}_cheap", activation=activation)]
    out = sliced(layers.Concatenate(axis=axis(), name=name)(features), 0, filters)
    if not attention:
        return out
    gates = unit(layers.AveragePooling2D(2)(x), filters, f"{name}_short", size=1, activation=False)
    gates = layers.Activation("sigmoid")(cheap(gates, f"{name}_row", activation=False))
    return layers.Multiply(name=f"{name}_gated")([out, layers.UpSampling2D()(gates)])


def ghost_bottleneck(x, hidden, filters, name, *, se=False, strides=1, attention=False):
    inputs = x
    x = ghost(x, hidden, f"{name}_wide", attention=attention)
    if strides > 1:
        x = layers.DepthwiseConv2D(3, strides, padding="same", name=f"{name}_dw")(x)
        x = layers.BatchNormalization(axis=axis(), name=f"{name}_dw_bn")(x)
    x = squeeze_excite(x, f"{name}_se") if se else x
    x = ghost(x, filters, f"{name}_narrow", activation=False)
    if strides > 1:
        steps = [layers.DepthwiseConv2D(3, strides, padding="same"), layers.Conv2D(filters, 1)]
        inputs = steps[1](layers.BatchNormalization(axis=axis())(steps[0](inputs)))
    return layers.Add(name=name)([x, inputs])


def ghost_net():
    inputs = image()
    x = ghost_bottleneck(unit(inputs, 8, "stem"), 16, 8, "a")
    x = ghost_bottleneck(x, 24, 12, "b", strides=2)
    x = ghost_bottleneck(x, 32, 12, "c", se=True)
    return keras.Model(inputs, classifier(ghost_bottleneck(x, 32, 12, "d", attention=True)))


# Res2Net (arXiv 1904.01169): slices of a map, each convolved together with the result of the one before.


def res2net_unit(x, name, slices):
    width = channels(x) // 4
    y = unit(x, channels(x), f"{name}_in", size=1)
    first, *others = slices(y, width)
    results = [first]
    for number, part in enumerate(others):
        part = layers.Add(name=f"{name}_inner{number}")([part, results[-1]]) if number else part
        results.append(unit(part, width, f"{name}_{number}"))
    y = layers.Concatenate(axis=axis(), name=f"{name}_concat")(results)
    return layers.Add(name=name)([x, unit(y, channels(x), f"{name}_out", size=1, activation=False)])


def indexed(x, width):
    return [sliced(x, number * width, (number + 1) * width) for number in range(4)]


def split(x, width):
    return ops.split(x, 4, axis=axis())


def by_lambda(x, width):
    return [layers.Lambda(lambda x, start=start: sliced(x, start, start + width))(x) for start in range(0, 16, width)]


def res2net(slices):
    def build():
        inputs = image()
        return keras.Model(inputs, classifier(res2net_unit(unit(inputs, 16, "stem"), "unit", slices)))

    build.__name__ = f"res2net_{slices.__name__}"
    return build


def cross_stage():
    """Residual units on half of the channels, as in CSPNet: their shortcut is a slice that the branch starts from."""
    inputs = image()
    x = unit(inputs, 16, "stem")
    left, right = sliced(x, 0, 8), sliced(x, 8, 16)
    right = layers.Add(name="add")([right, unit(right, 8, "branch", activation=False)])
    return keras.Model(inputs, classifier(layers.Concatenate(axis=axis())([left, right])))


# Others.


def lc_net():
    """Depthwise and 1x1 convolutions without a shortcut, the last with SE between them."""
    inputs = image()
    x = unit(cheap(unit(inputs, 8, "stem"), "dw0"), 12, "pw0", size=1)
    x = unit(squeeze_excite(cheap(x, "dw1"), "se1"), 12, "pw1", size=1)
    return keras.Model(inputs, classifier(x))


def hg_block(x, name, *, shortcut=False):
    """Of HGNet, as in VoVNet: a chain of features, concatenated and projected."""
    features = [x]
    for number in range(3):
        features.append(unit(features[-1], 6, f"{name}_{number}"))
    y = unit(layers.Concatenate(axis=axis(), name=f"{name}_concat")(features), 8, f"{name}_squeeze", size=1)
    y = unit(y, 12, f"{name}_excite", size=1)
    return layers.Add(name=f"{name}_add")([x, y]) if shortcut else y


def hg_net():
    inputs = image()
    x = hg_block(unit(inputs, 8, "stem"), "a")
    return keras.Model(inputs, classifier(hg_block(x, "b", shortcut=True)))


def unused_outputs():
    """As in DeepLab: a nested backbone returns maps that nothing takes."""
    inputs = image()
    x = first = unit(inputs, 8, "stem")
    for name in "ab":
        x = layers.Add(name=f"{name}_add")([x, unit(x, 8, name, activation=False)])
        first = x if name == "a" else first
    body = keras.Model(inputs, {"P2": first, "P3": x}, name="body")
    images = image()
    return keras.Model(images, classifier(body(images)["P2"]))


def conditioned_by_another_image():
    """The gates are the answer of a network of their own, which has its places."""
    left, right = image(), image()
    x, y = unit(left, 8, "left"), unit(right, 8, "right")
    gates = layers.Activation("sigmoid")(layers.AveragePooling2D(1)(unit(y, 8, "last")))
    return keras.Model([left, right], classifier(layers.Multiply()([x, gates])))


PLACES = {
    u_net: PLAIN_U_NET,
    attention_u_net: PLAIN_U_NET,
    attention_u_net_of_the_authors: PLAIN_U_NET,
    residual_u_net: ["branch0_bn", "branch1_bn", "decoder1b", "decoder0b"],
    residual_attention_u_net: ["branch0_bn", "branch1_bn", "decoder1b", "decoder0b"],
    u_net_of_the_tutorial: ["down/branch0_bn", "down/branch1_bn", "up1/act", "up0/act"],
    resized_first: ["a_bn"],
    deep_supervision: ["a_bn", "up"],
    cbam_after_convolutions: ["(a)", "(b)", "c"],
    cbam_in_residual_branches: ["(cbam_positions)"],
    ghost_net: ["a_wide", "b_dw_bn", "(c_wide)", "d_wide_gated"],
    res2net(indexed): ["unit_out_bn"],
    res2net(split): ["unit_out_bn"],
    res2net(by_lambda): ["unit_out_bn"],
    cross_stage: ["branch_bn"],
    lc_net: ["stem", "pw0", "(pw1)"],
    hg_net: ["a_excite", "b_excite"],
    unused_outputs: ["body/a_bn"],
    conditioned_by_another_image: ["left", "right", "last"],
}


def found(model):
    """The places in the order of the graph, in parentheses where there is SE already."""
    return [f"({one.layer})" if one.obstacle else one.layer for one in find_positions(model)]


def answers(model, inputs):
    return [ops.convert_to_numpy(x) for x in keras.tree.flatten(model(inputs, training=False))]


@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_places_are_where_the_design_has_them_and_the_answers_stay(make):
    model = randomized(make())
    assert sorted(found(model)) == sorted(PLACES[make])
    if all(place.startswith("(") for place in PLACES[make]):
        return
    result = insert_squeeze_excite(model)
    free = [place for place in PLACES[make] if not place.startswith("(")]
    assert sum(isinstance(layer, SqueezeExcite) for layer in result._flatten_layers()) == len(free)
    inputs = [np.random.default_rng(0).uniform(0, 1, (2, *IMAGE)).astype("float32") for _ in model.inputs]
    inputs = inputs[0] if len(inputs) == 1 else inputs
    for ours, theirs in zip(answers(result, inputs), answers(model, inputs), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("make", [residual_attention_u_net, ghost_net, hg_net], ids=lambda make: make.__name__)
def test_places_do_not_depend_on_the_data_format(make):
    keras.config.set_image_data_format("channels_first")
    try:
        model = make()
    finally:
        keras.config.set_image_data_format("channels_last")
    assert sorted(found(model)) == sorted(PLACES[make])
