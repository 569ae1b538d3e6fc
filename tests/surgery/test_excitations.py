"""SE blocks of other layers and of operations: found, read, pruned, and hoisted as ours are."""

import functools
import pathlib

import keras
import numpy as np
import pytest
from cases import ALL
from keras import layers, ops
from rewriting import deployment, randomized, relative_difference

from se_keras import model_info
from se_keras.analysis import collect_gates, image_gates
from se_keras.surgery import find_positions, prune_gates, pruning_curve
from se_keras.surgery.excitation import Excitation, find_excitations
from se_keras.surgery.graph import build_model, read_graph


def of_convolutions(x):
    """As in EfficientNet."""
    z = layers.GlobalAveragePooling2D(name="unit_se_squeeze")(x)
    z = layers.Reshape((1, 1, x.shape[-1]), name="unit_se_reshape")(z)
    z = layers.Conv2D(2, 1, activation="swish", name="unit_se_reduce")(z)
    z = layers.Conv2D(x.shape[-1], 1, activation="sigmoid", name="unit_se_expand")(z)
    return layers.multiply([x, z], name="unit_se_excite")


def of_dense(x):
    z = layers.GlobalAveragePooling2D(keepdims=True)(x)
    z = layers.Dense(2, activation="relu", name="fc1")(z)
    z = layers.Dense(x.shape[-1], activation="sigmoid", name="fc2")(z)
    return layers.Multiply(name="gated")([z, x])


def of_operations(x):
    z = ops.mean(x, axis=(1, 2), keepdims=True)
    z = layers.Dense(2)(z)
    z = layers.Dense(x.shape[-1])(z * ops.sigmoid(z))
    return x * (ops.relu6(z + 3.0) / 6.0)


def of_an_index(x):
    z = layers.Dense(2, activation="relu")(layers.GlobalAveragePooling2D()(x))
    return x * layers.Dense(x.shape[-1], activation="softplus")(z)[:, None, None, :]


def of_two_squeezes(x):
    """As in CBAM."""
    dense = layers.Dense(2, activation="relu"), layers.Dense(x.shape[-1])
    pools = layers.GlobalAveragePooling2D(keepdims=True), layers.GlobalMaxPooling2D(keepdims=True)
    return x * ops.sigmoid(sum(dense[1](dense[0](pool(x))) for pool in pools))


BLOCKS = {
    of_convolutions: ("unit_se", (0.0, 1.0)),
    of_dense: ("gated", (0.0, 1.0)),
    of_operations: ("multiply", (0.0, 1.0)),
    of_an_index: ("multiply", None),
    of_two_squeezes: ("multiply", (0.0, 1.0)),
}


@functools.cache
def with_block(block) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 1, name="conv")(layers.Rescaling(1 / 255)(inputs))
    x = block(layers.BatchNormalization(name="bn")(x))
    x = layers.Conv2D(4, 3, name="last")(x)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    return randomized(keras.Model(inputs, outputs, name=block.__name__))


@functools.cache
def network(name: str) -> keras.Model:
    return getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=5)


def photos(model: keras.Model, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, *model.input_shape[1:])).astype("float32")


def excitations(model: keras.Model) -> tuple[Excitation, ...]:
    return find_excitations(read_graph(model))


def by_hand(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """Returns gates and maps as the model's own tensors: the two inputs of every product."""
    found = [layer for layer in model.layers if type(layer).__name__ == "Multiply" and len(layer.input) == 2]
    tensors = [sorted(layer.input, key=lambda x: x.shape[1]) for layer in found]
    return keras.Model(model.inputs, tensors).predict(images, verbose=0)


def constant(model: keras.Model) -> keras.Model:
    """Returns a copy in which the gates do not depend on the image."""
    copy = build_model(read_graph(model))
    for one in excitations(copy):
        for call in one.path[::-1]:
            if hasattr(call.operation, "kernel"):
                call.operation.kernel.assign(np.zeros(call.operation.kernel.shape))
                break
    return copy


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_found_whoever_wrote_it(block):
    (found,) = excitations(with_block(block))
    name, limits = BLOCKS[block]
    assert found.name.startswith(name)
    assert found.limits == limits
    info = model_info(with_block(block))
    projections = [layer for layer in with_block(block).layers if layer in {call.operation for call in found.path}]
    assert info.se_blocks == 1
    assert (
        info.total.se_macs >= sum(np.prod(layer.kernel.shape) for layer in projections if hasattr(layer, "kernel")) > 0
    )
    assert (found.channels, found.axis) == (6, 3)
    assert [position.obstacle for position in find_positions(with_block(block), ["bn"])] == ["it already has SE"]


@pytest.mark.parametrize(
    ("change", "limits"),
    [
        (lambda s: 2 * s, (0, 2)),
        (lambda s: s * 2, (0, 2)),
        (lambda s: 1 + s, (1, 2)),
        (lambda s: 1 - s, (0, 1)),
        (lambda s: s - 1, (-1, 0)),
        (lambda s: 0.5 + s * 0.5, (0.5, 1)),
        (lambda s: s / 4, (0, 0.25)),
        (lambda s: -2 * s, (-2, 0)),
        (lambda s: 1 / (1 + s), None),
        (lambda s: s + s, None),
    ],
)
def test_a_gate_may_be_changed_by_numbers_on_either_side(change, limits):
    inputs = keras.Input((8, 8, 4))
    gate = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(inputs))
    model = keras.Model(inputs, inputs * change(gate))
    (found,) = excitations(model)
    assert found.limits == limits


def gated(make):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 1)(inputs)
    return keras.Model(inputs, make(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x * layers.Conv2D(1, 1, activation="sigmoid")(ops.mean(x, axis=-1, keepdims=True)),  # of positions
        lambda x: x * layers.Conv2D(6, 1, activation="sigmoid")(x),  # without a squeeze
        lambda x: x * ops.sigmoid(ops.mean(x, axis=(1, 2), keepdims=True)),  # without projections
        lambda x: x * layers.Dense(6)(layers.Conv2D(6, 1)(x) + ops.mean(x, axis=(1, 2), keepdims=True)),
    ],
)
def test_other_products_are_no_blocks(make):
    assert not excitations(gated(make))


@pytest.mark.parametrize("block", BLOCKS)
def test_gates_are_those_by_hand(block):
    model = with_block(block)
    images = photos(model)
    (gate,) = [z for name, z in gates_of(model, images).items()]
    collected = collect_gates(model, images, labels=[0, 1, 0, 1], verbose=0).blocks[0]
    np.testing.assert_allclose(collected.mean, [gate[::2].mean(0), gate[1::2].mean(0)], rtol=1e-5)
    np.testing.assert_allclose(collected.total_std, gate.std(0), rtol=1e-4, atol=1e-7)
    assert collected.limits[0] <= gate.min() <= gate.max() <= collected.limits[1]


def gates_of(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the product divided by the map."""
    found = {}
    for one in excitations(model):
        wide, product = keras.Model(model.inputs, [one.map, one.call.outputs[0]]).predict(images, verbose=0)
        found[one.name] = np.nanmedian(product / np.where(wide == 0, np.nan, wide), axis=(1, 2))
    return found


def check_network(model: keras.Model, names: list[str]) -> None:
    images = photos(model)
    gates = collect_gates(model, images, verbose=0)
    assert [block.name for block in gates.blocks] == names
    theirs = by_hand(model, images)
    assert len(theirs) == len(names)
    for block, (gate, _) in zip(gates.blocks, theirs, strict=True):
        np.testing.assert_allclose(block.total_mean, gate.reshape(4, -1).mean(0), rtol=1e-5)
        assert block.limits == (0.0, 1.0)
    for found, (gate, wide) in zip(image_gates(model, images[0]).values(), theirs, strict=True):
        np.testing.assert_allclose(found.gates, gate[0].ravel(), rtol=1e-5)
        np.testing.assert_allclose(found.maps, wide[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_gates_of_mobilenet_v3():
    numbers = ["", *(f"_{number}" for number in range(3, 11))]
    check_network(network("MobileNetV3Small"), [f"expanded_conv{number}_squeeze_excite" for number in numbers])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("EfficientNetB0", 16), *([("EfficientNetV2B0", 16)] if ALL else [])])
def test_gates_of_efficientnets(name, count):
    model = network(name)
    names = [layer.name.removesuffix("_excite") for layer in model.layers if layer.name.endswith("se_excite")]
    assert len(names) == count
    check_network(model, names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "names"),
    [
        (
            "zeromodels",
            [
                f"regnet_encoder_stages_{stage}_layers_{layer}_layer_2_attention"
                for stage, layer in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1))
            ],
        ),
        ("kimm", ["blocks_5_0_se", "blocks_5_1_se"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*pretrained weights for .None.")  # kimm warns of what it was asked for
def test_gates_of_other_packages(package, names, monkeypatch):
    pytest.importorskip(package, reason="pip install 'se_keras[hosts]'")
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / "hosts")
    from hosts import HOSTS

    build = HOSTS[{"zeromodels": "zeromodels/RegNetY", "kimm": "kimm/LCNet035"}[package]]
    check_network(randomized(build()), names)


@pytest.mark.parametrize("block", BLOCKS)
def test_constant_gates_are_folded_and_the_answers_stay(block):
    model = constant(with_block(block))
    images = photos(model)
    (report,) = pruning_curve(model, images, bounds=[0.0], timed_calls=0, verbose=0)
    assert [(change.action, change.detail) for change in report.changes] == [("folded", "bn")]
    small = prune_gates(model, images, bound=0.0, verbose=0)
    assert relative_difference(model, small) < 1e-5
    assert not excitations(small)
    kinds = {type(layer).__name__ for layer in small.layers}
    assert not kinds & {"Multiply", "Reshape", "Mean", "Sigmoid", "GetItem"}
    assert small.count_params() == report.parameters[1] < report.parameters[0]


def test_gates_that_are_also_an_output_stay():
    model = constant(with_block(of_dense))
    (one,) = excitations(model)
    both = keras.Model(model.input, [*model.outputs, one.gate])
    (report,) = pruning_curve(both, photos(model), bounds=[0.0], timed_calls=0, verbose=0)
    assert [(change.action, change.detail) for change in report.changes] == [
        ("scaled", "the output of 'bn' is also used elsewhere")
    ]
    assert relative_difference(both, prune_gates(both, photos(model), bound=0.0, verbose=0)) < 1e-5


@pytest.mark.slow
def test_constant_gates_of_mobilenet_v3_are_folded_or_scaled():
    model = constant(network("MobileNetV3Small"))
    images = photos(model)
    (report,) = pruning_curve(model, images, bounds=[0.0], timed_calls=0, verbose=0)
    details = {change.block: (change.action, change.detail) for change in report.changes}
    assert details["expanded_conv_squeeze_excite"] == ("folded", "expanded_conv_depthwise_bn")
    assert [action for action, _ in details.values()] == ["folded"] + 8 * ["scaled"]
    small = prune_gates(model, images, bound=0.0, verbose=0)
    assert small.get_layer("expanded_conv_3_squeeze_excite").kernel.shape == (1, 1, 96, 1)
    assert relative_difference(model, small) < 1e-4


@pytest.mark.parametrize("block", BLOCKS)
def test_a_squeeze_is_hoisted_where_that_is_exact(block):
    model = with_block(block)
    deployed, changes = deployment(model)
    (change,) = [change for change in changes if change.layer == excitations(model)[0].name]
    if block is of_two_squeezes:
        assert (change.action, change.detail) == ("kept", change.detail)
        assert "not the mean over all positions" in change.detail
    else:
        assert (change.action, change.detail) == ("hoisted", "conv")
        (one,) = excitations(deployed)
        assert one.source.shape[-1] == 3
        assert "already reads the input" in deployment(deployed)[1][-1].detail
    assert relative_difference(model, deployed) < 1e-5


def test_a_squeeze_after_an_activation_is_kept_with_the_name_of_its_block():
    _, changes = deployment(network("MobileNetV3Small"))
    details = {change.layer: change.detail for change in changes if change.layer.endswith("squeeze_excite")}
    assert len(details) == 9
    assert details["expanded_conv_squeeze_excite"] == "'re_lu' (ReLU) precedes it, not a convolution"


class SEBlock(keras.layers.Layer):
    """A user's layer, written with layers and operations of Keras."""

    def build(self, shape):
        self.squeeze = layers.GlobalAveragePooling2D(keepdims=True)
        self.reduce = layers.Dense(2, activation="relu")
        self.reduce.build((None, 1, 1, shape[-1]))
        self.kernel = self.add_weight(name="kernel", shape=(2, shape[-1]))

    def compute_output_shape(self, shape):
        return shape

    def call(self, x, training=None):
        if training:
            raise AssertionError("gates are those of inference")
        return x * ops.sigmoid(ops.matmul(self.reduce(self.squeeze(x)), self.kernel))


class Unit(keras.layers.Layer):
    """A layer with a block inside, and a convolution."""

    def build(self, shape):
        self.block, self.conv = SEBlock(name="inner"), layers.Conv2D(shape[-1], 1)
        self.block.build(shape)
        self.conv.build(shape)

    def call(self, x):
        return x + self.conv(self.block(x))


class SqueezeAndExcite(SEBlock):
    """A user's layer that computes outside of Keras."""

    def call(self, x):
        if keras.backend.is_keras_tensor(x):
            raise ValueError("takes no symbolic tensors")
        return super().call(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@functools.cache
def with_layers(*kinds: type) -> keras.Model:
    x = inputs = keras.Input((8, 8, 3))
    for number, kind in enumerate(kinds):
        x = kind(name=f"layer{number}")(layers.Conv2D(6, 1)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def test_gates_inside_layers_of_others_are_read_and_stay():
    model = with_layers(SEBlock, Unit)
    images = photos(model) / 255
    gates = collect_gates(model, images, verbose=0)
    assert [block.name for block in gates.blocks] == ["layer0", "layer1"]
    layer = model.get_layer("layer0")
    wide, product = keras.Model(model.inputs, [layer.input, layer.output]).predict(images, verbose=0)
    np.testing.assert_allclose(gates.blocks[0].total_mean, (product / wide)[:, 0, 0].mean(0), rtol=1e-4)
    (report,) = pruning_curve(model, images, bounds=[1.0], timed_calls=0, verbose=0)
    details = [(change.block, change.action, change.detail) for change in report.changes]
    assert details[1] == ("layer1", "kept", "it is inside 'layer1' (Unit), which is not expanded")
    assert (report.agreement, report.pruned) == (1.0, ())
    left = {change.layer: change.detail for change in deployment(model)[1]}
    assert left["layer0"].startswith("1 SE block inside 'layer0' (SEBlock, 26 weights): only functional")
    assert left["layer1"].startswith("1 SE block inside 'layer1' (Unit, 68 weights)")


def test_layers_of_others_that_cannot_be_read_are_named():
    reason = r"'layer0' \(SqueezeAndExcite\): probably SE, but not a layer whose `call` takes symbolic Keras"
    model = with_layers(SqueezeAndExcite)
    with pytest.raises(ValueError, match=f"No gates of .* can be read: {reason}"):
        collect_gates(model, photos(model), verbose=0)
    both = with_layers(SqueezeAndExcite, SEBlock)
    with pytest.warns(UserWarning, match=f"Not all gates of .* are read: {reason}"):
        gates = collect_gates(both, photos(both) / 255, verbose=0)
    assert [block.name for block in gates.blocks] == ["layer1"]
    assert "probably SE" in {change.layer: change.detail for change in deployment(model)[1]}["layer0"]


def repeated(layer) -> keras.Model:
    inputs = keras.Input((2, 8, 8, 3))
    return keras.Model(inputs, layers.TimeDistributed(layer, name="steps")(inputs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_block(of_dense), r"not read \(1 in 'steps' \(TimeDistributed\)\).*get_layer\('steps'\).layer"),
        (SEBlock, r"'steps' \(TimeDistributed\): probably SE"),
    ],
)
def test_blocks_of_every_step_are_named(make, message):
    model = repeated(make())
    with pytest.raises(ValueError, match=message):
        collect_gates(model, photos(model), verbose=0)
