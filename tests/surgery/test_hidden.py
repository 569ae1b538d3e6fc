"""Layers of other classes: places around them, SE inside them, and what is said about those that are not expanded."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops
from rewriting import randomized

from se_keras import SqueezeExcite, insert_squeeze_excite, model_info
from se_keras.surgery import find_changes, find_positions

IMAGE = (8, 8, 3)


class Block(layers.Layer):
    """Two convolutions with their norms, as other packages write them."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.convs = [layers.Conv2D(filters, 3, padding="same") for _ in range(2)]
        self.norms = [layers.BatchNormalization() for _ in range(2)]

    def call(self, inputs, training=None):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            inputs = ops.relu(norm(conv(inputs), training=training))
        return inputs


class Encoder(Block):
    """A network in a layer, that returns several maps."""

    def call(self, inputs, training=None):
        first = self.norms[0](self.convs[0](inputs), training=training)
        return first, self.norms[1](self.convs[1](first), training=training)


class Cheap(layers.Layer):
    """A depthwise convolution with its norm."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.norm = layers.DepthwiseConv2D(3, padding="same"), layers.BatchNormalization()

    def call(self, inputs, training=None):
        return self.norm(self.conv(inputs), training=training)


class TheirSE(layers.Layer):
    """SE as a class of its own."""

    def build(self, shape):
        self.reduce, self.expand = layers.Dense(2, activation="relu"), layers.Dense(shape[-1], activation="sigmoid")

    def call(self, inputs):
        return inputs * self.expand(self.reduce(ops.mean(inputs, axis=(1, 2), keepdims=True)))


class SEBlockThatIsNotRead(TheirSE):
    """SE that takes no symbolic tensors when it is called by itself."""

    def call(self, inputs):
        if "_calls" not in vars(self):
            self._calls = 0
        self._calls += 1
        if self._calls > 1:
            raise RuntimeError("called again")
        return super().call(inputs)


class BlockWithSE(Block):
    """A convolution with SE behind it."""

    def build(self, shape):
        self.se = TheirSE()

    def call(self, inputs, training=None):
        return self.se(super().call(inputs, training=training))


def conv(x, filters, name):
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv")(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def network(*steps):
    inputs = x = keras.Input(IMAGE)
    for step in steps:
        x = step(x)
    return randomized(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="theirs"))


def stem(x):
    return layers.ReLU(name="stem")(conv(x, 8, "stem"))


def residual(branch):
    return lambda x: layers.Add(name="add")([x, branch(x)])


def found(model):
    return {position.layer: position.obstacle for position in find_positions(model)}


def assert_same(model, other):
    images = np.random.default_rng(0).uniform(0, 1, (2, *IMAGE)).astype("float32")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(one(images, training=False)) for one in (model, other)))


def test_a_network_of_layers_of_others_has_places_after_them():
    model = network(stem, Block(8, name="block1"), Block(12, name="block2"))
    assert found(model) == {"stem": "", "block1": "", "block2": ""}
    result = insert_squeeze_excite(model)
    assert [layer.name for layer in result.layers if isinstance(layer, SqueezeExcite)] == [
        "stem_se",
        "block1_se",
        "block2_se",
    ]
    assert_same(model, result)


def test_a_branch_of_layers_of_others_ends_after_the_last():
    branch = keras.Sequential([Block(8, name="first"), Block(8, name="last")], name="branch")
    model = network(stem, residual(branch))
    assert {name for name, obstacle in found(model).items() if not obstacle} == {"branch/last"}


def test_a_ghost_module_of_layers_of_others_is_a_whole():
    def ghost(x):
        primary = Block(4, name="primary")(x)
        return layers.Concatenate(name="ghost")([primary, Cheap(name="cheap")(primary)])

    places = [name for name, obstacle in found(network(stem, residual(ghost))).items() if not obstacle]
    assert places == ["ghost"]


def test_places_that_cannot_be_reached_are_said():
    model = network(stem, residual(lambda x: conv(x, 8, "branch")), Block(8, name="pyramid"))
    unreached = "2 convolutions and 2 batch normalizations inside it cannot be reached"
    obstacles = found(model)
    assert list(obstacles) == ["branch_bn", "pyramid"]
    assert obstacles["pyramid"].startswith(unreached)
    with pytest.warns(UserWarning, match=r"No blocks were inserted inside 'pyramid' of 'theirs': only functional"):
        assert_same(model, insert_squeeze_excite(model))


def test_a_network_in_one_layer_has_no_places():
    inputs = keras.Input(IMAGE)
    first, second = Encoder(8, name="encoder")(stem(inputs))
    model = keras.Model(inputs, [first, second], name="theirs")
    with pytest.raises(ValueError, match=r"Not expanded: 2 convolutions and 2 batch .* inside 'encoder' \(Encoder, "):
        insert_squeeze_excite(model)
    assert find_positions(model, "stem$")[0].layer == "stem"


@pytest.mark.parametrize("kind", [TheirSE, SEBlockThatIsNotRead])
def test_se_of_others_is_not_doubled(kind):
    model = network(stem, residual(lambda x: kind(name="their_se")(conv(x, 8, "branch"))))
    assert found(model) == {"their_se": "it already has SE"}
    for layer in ("branch_bn", "their_se"):
        assert find_positions(model, [layer])[0].obstacle == "it already has SE"


def test_se_in_a_layer_of_others_is_not_doubled():
    model = network(stem, BlockWithSE(8, name="block"))
    assert found(model)["block"] == "it already has SE"
    with pytest.warns(UserWarning, match="cannot follow|already has SE"):
        insert_squeeze_excite(model, ["block"])


def test_what_is_not_expanded_is_said_by_class_with_what_it_holds():
    model = network(stem, Block(8, name="block1"), Block(12, name="block2"))
    kept = {change.layer: change.detail for change in find_changes(model) if change.action == "kept"}
    assert kept["block1"].startswith("2 batch normalizations inside 'block1' (Block, 1,232 weights): only functional")
    (counts, hidden) = model_info(model).notes
    assert counts == "The multiply-adds of 2 layers of class Block (3,512 weights) are not counted."
    assert hidden == (
        "Not expanded by surgery: 4 convolutions and 4 batch normalizations inside 2 layers of class Block "
        "(3,512 weights)."
    )
