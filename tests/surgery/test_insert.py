"""SE put into networks: the same answers before training, gradients at once, and the places that people expect."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from cases import ALL
from keras import layers, ops
from rewriting import randomized, relative_difference

import se_keras
from se_keras import SEConfig, SqueezeExcite
from se_keras.surgery import deploy
from se_keras.surgery.graph import read_nested_graph
from se_keras.surgery.insert import insert_squeeze_excite
from se_keras.surgery.positions import Position, find_positions


def blocks_of(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, SqueezeExcite)]


def places(model, where="auto"):
    return [position.layer for position in find_positions(model, where) if not position.obstacle]


def values_of(variables):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def inputs_for(model, batch=4):
    rng = np.random.default_rng(2)
    arrays = [rng.normal(size=(batch, *x.shape[1:])).astype("float32") for x in model.inputs]
    return arrays[0] if len(arrays) == 1 else arrays


def train_one_step(model):
    """One step of SGD towards random targets."""
    rng = np.random.default_rng(3)
    x = inputs_for(model)
    targets = [rng.normal(size=(4, *y.shape[1:])).astype("float32") for y in model.outputs]
    model.compile(keras.optimizers.SGD(0.1), loss=["mse"] * len(targets), run_eagerly=True)
    model.train_on_batch(x, targets if len(targets) > 1 else targets[0])


# Graphs. Each has what its name says, convolutions of 16 to 32 channels, and norms.


def conv_norm_relu(x, filters, name, activation=True):
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


def residual(x, name):
    branch = conv_norm_relu(x, x.shape[-1], f"{name}_1")
    branch = conv_norm_relu(branch, x.shape[-1], f"{name}_2", activation=False)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, branch]))


def head(x):
    return layers.Dense(3, name="head")(layers.GlobalAveragePooling2D(name="pool")(x))


def two_inputs_two_outputs():
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((8, 8, 3), name="b")
    x = residual(conv_norm_relu(a, 16, "left"), "left_unit")
    y = residual(conv_norm_relu(b, 16, "right"), "right_unit")
    z = layers.Concatenate(name="both")([x, y])
    return keras.Model([a, b], [head(z), layers.GlobalMaxPooling2D(name="y")(y)], name="two")


def backbone(name="body"):
    inputs = keras.Input((8, 8, 3), name=f"{name}_image")
    return keras.Model(inputs, residual(conv_norm_relu(inputs, 16, "stem"), "unit"), name=name)


def nested_model():
    inputs = keras.Input((8, 8, 3))
    x = backbone()(layers.Rescaling(0.5, name="rescaling")(inputs), training=False)
    return keras.Model(inputs, head(residual(x, "top")))


def shared_layer():
    """A convolution that is called twice, in a residual branch each time."""
    inputs = keras.Input((8, 8, 3))
    x = conv_norm_relu(inputs, 16, "stem")
    conv, norm = layers.Conv2D(16, 3, padding="same", name="conv"), layers.BatchNormalization(name="bn")
    x = layers.Add(name="add1")([x, norm(conv(x))])
    x = layers.Add(name="add2")([x, norm(conv(x))])
    return keras.Model(inputs, head(x))


def nested_twice():
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    body = backbone()
    return keras.Model([a, b], head(layers.Subtract(name="difference")([body(a), body(b)])))


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(16, 3, activation="relu", name="conv1"),
            layers.Conv2D(20, 3, name="conv2"),
            layers.BatchNormalization(name="bn2"),
            layers.Activation("relu", name="act2"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, name="head"),
        ]
    )


def sequential_blocks():
    """Residual branches that are models of their own."""
    inputs = keras.Input((8, 8, 16))
    layers_of = [
        layers.Conv2D(16, 3, padding="same", name="conv"),
        layers.BatchNormalization(name="bn"),
        layers.Dropout(0.1, name="drop"),
    ]
    return keras.Model(inputs, head(inputs + keras.Sequential(layers_of, name="branch")(inputs)))


def one_activation_everywhere():
    inputs = keras.Input((8, 8, 3))
    relu = layers.ReLU(name="relu")
    x = relu(layers.Conv2D(16, 3, name="conv1")(inputs))
    return keras.Model(inputs, head(relu(layers.Conv2D(32, 3, name="conv2")(x))))


def sequence():
    inputs = keras.Input((12, 2))
    x = layers.Conv1D(16, 3, padding="same", name="stem")(inputs)
    branch = layers.BatchNormalization(name="bn")(layers.Conv1D(16, 3, padding="same", name="conv")(x))
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Add()([x, branch])))


def volume():
    inputs = keras.Input((6, 6, 6, 1))
    x = layers.Conv3D(16, 3, name="conv1", activation="relu")(inputs)
    return keras.Model(inputs, layers.GlobalAveragePooling3D()(layers.Conv3D(16, 3, name="conv2", activation="elu")(x)))


def operations():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    branch = layers.BatchNormalization(name="bn")(layers.Conv2D(16, 3, padding="same", name="conv")(ops.relu(x)))
    return keras.Model(inputs, head(ops.relu(x + branch)))


def u_net():
    inputs = keras.Input((8, 8, 3))
    skip = conv_norm_relu(inputs, 16, "down")
    x = conv_norm_relu(layers.MaxPooling2D()(skip), 32, "bottom")
    x = layers.Conv2D(16, 2, padding="same", name="up_conv")(layers.UpSampling2D(name="up")(x))
    x = conv_norm_relu(layers.Concatenate(name="skip")([skip, x]), 16, "decoder")
    return keras.Model(inputs, layers.Conv2D(2, 1, activation="sigmoid", name="mask")(x))


PLACES = {
    two_inputs_two_outputs: ["left_unit_2_bn", "right_unit_2_bn"],
    nested_model: ["body/unit_2_bn", "top_2_bn"],
    shared_layer: ["bn", "bn"],
    nested_twice: ["body/unit_2_bn"],
    sequential: ["conv1", "act2"],
    sequential_blocks: ["branch/bn"],
    one_activation_everywhere: ["relu", "relu"],
    sequence: ["bn"],
    volume: ["conv1", "conv2"],
    operations: ["bn"],
    u_net: ["down_relu", "bottom_relu", "decoder_relu"],
}


@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_inserted_blocks_change_nothing_until_they_are_trained(make):
    model = randomized(make())
    before = values_of(model.weights)
    assert sorted(places(model)) == sorted(PLACES[make])
    result = insert_squeeze_excite(model)
    assert type(result).__name__ == "Functional"
    assert result.name == model.name
    assert relative_difference(model, result) <= 1e-5
    blocks = blocks_of(result)
    assert all(block.trainable for block in blocks)
    assert result.count_params() == model.count_params() + sum(block.count_params() for block in blocks)
    starts = [values_of(block.trainable_variables) for block in blocks]
    train_one_step(result)
    for block, start in zip(blocks, starts, strict=True):
        changed = [np.abs(a - b).max() for a, b in zip(values_of(block.trainable_variables), start, strict=True)]
        assert min(changed[2:]) > 0, "the second projection moves in the first step"
    again = [values_of(block.trainable_variables) for block in blocks]
    train_one_step(result)
    for block, start in zip(blocks, again, strict=True):
        changed = [np.abs(a - b).max() for a, b in zip(values_of(block.trainable_variables), start, strict=True)]
        assert min(changed) > 0, "and so sets the first one free"
    assert relative_difference(model, result) > 1e-5
    for value, old in zip(values_of(model.weights), before, strict=True):
        np.testing.assert_array_equal(value, old)


@pytest.mark.parametrize("make", [two_inputs_two_outputs, nested_model, shared_layer, nested_twice])
def test_names_weights_and_nesting_stay(make):
    model = randomized(make())
    result = insert_squeeze_excite(model)
    for layer in model.layers:
        again = result.get_layer(layer.name)
        assert type(again) is type(layer)
        assert again is not layer
        if not isinstance(layer, keras.Model):
            for value, old in zip(again.get_weights(), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(value, old)
    new = [layer.name for layer in result.layers if layer.name not in {old.name for old in model.layers}]
    assert new == [f"{name}_se" for name in dict.fromkeys(places(model)) if "/" not in name]
    inner = result.get_layer("body") if "body" in [layer.name for layer in result.layers] else None
    assert inner is None or "unit_2_bn_se" in [layer.name for layer in inner.layers]


def test_calls_keep_their_arguments():
    result = insert_squeeze_excite(nested_model())
    (call,) = [call for call in read_nested_graph(result).calls if call.name == "body"]
    assert call.operation is result.get_layer("body")
    assert call.kwargs["training"] is False


def test_what_is_called_twice_shares_its_block_and_an_activation_does_not():
    assert len(blocks_of(insert_squeeze_excite(shared_layer()))) == 1
    assert len(blocks_of(insert_squeeze_excite(nested_twice()))) == 1
    blocks = blocks_of(insert_squeeze_excite(one_activation_everywhere()))
    assert {block.name: block.expand_kernel.shape[1] for block in blocks} == {"relu_se": 16, "relu_se_1": 32}


def test_a_layer_in_two_nested_models_stays_one():
    inputs = keras.Input((8, 8, 3))
    body = backbone()
    early = keras.Model(body.inputs, body.get_layer("stem_relu").output, name="early")
    model = keras.Model(inputs, head(layers.Concatenate()([body(inputs), early(inputs)])))
    result = insert_squeeze_excite(model)
    assert result.get_layer("body").get_layer("stem_conv") is result.get_layer("early").get_layer("stem_conv")


def test_adapted_normalization_is_carried_over():
    inputs = keras.Input((8, 8, 3))
    norm = layers.Normalization(name="normalization")
    norm.adapt(np.random.default_rng(0).normal(3.0, 2.0, (8, 8, 8, 3)).astype("float32"))
    model = keras.Model(inputs, head(residual(conv_norm_relu(norm(inputs), 16, "stem"), "unit")))
    assert relative_difference(model, insert_squeeze_excite(model)) <= 1e-5
    assert relative_difference(model, deploy(model)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("make", [two_inputs_two_outputs, nested_model, shared_layer, sequence, volume])
def test_result_is_saved_cloned_and_deployed(make, tmp_path):
    result = randomized(insert_squeeze_excite(randomized(make())))
    for block in blocks_of(result):
        block.expand_bias.assign(np.linspace(-1, 1, block.expand_bias.shape[0]))
    result.save(tmp_path / "model.keras")
    assert relative_difference(result, keras.models.load_model(tmp_path / "model.keras")) <= 1e-6
    clone = keras.models.clone_model(result)
    clone.set_weights(result.get_weights())
    assert relative_difference(result, clone) <= 1e-6
    assert relative_difference(result, deploy(result)) <= 1e-5


@pytest.mark.slow
def test_result_exports(tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("exports are written with TensorFlow")
    from se_keras import export

    inputs = keras.Input((8, 8, 3))
    x = residual(conv_norm_relu(inputs, 16, "stem"), "unit")
    result = insert_squeeze_excite(randomized(keras.Model(inputs, head(x), name="own")))
    export.saved_model(result, tmp_path / "saved")
    import tensorflow as tf

    x = inputs_for(result)
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    answer = next(iter(served(tf.constant(x)).values()))
    np.testing.assert_allclose(answer, result(x, training=False), rtol=1e-4, atol=1e-5)


# What is trained.


@pytest.mark.parametrize("make", [two_inputs_two_outputs, nested_model])
def test_freeze_base_leaves_the_new_blocks_only(make):
    model = randomized(make())
    result = insert_squeeze_excite(model, freeze_base=True)
    blocks = blocks_of(result)
    assert len(result.trainable_variables) == 4 * len(blocks)
    others = [layer for layer in result._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    before = values_of([norm.moving_mean for norm in others])
    train_one_step(result)
    for value, old in zip(values_of([norm.moving_mean for norm in others]), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_what_is_frozen_stays_frozen_and_the_blocks_in_it_are_not():
    model = nested_model()
    model.get_layer("body").trainable = False
    result = insert_squeeze_excite(model)
    body = result.get_layer("body")
    assert {variable.path.split("/")[-2] for variable in body.trainable_variables} == {"unit_2_bn_se"}
    assert result.get_layer("top_1_conv").trainable
    model.trainable = False
    assert len(insert_squeeze_excite(model).trainable_variables) == 8


# Where.


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("_add$", ["body/unit_add", "top_add"]),
        ("^top_.*conv$", ["top_1_conv", "top_2_conv"]),
        (layers.ReLU, ["body/stem_relu", "body/unit_1_relu", "body/unit_out", "top_1_relu", "top_out"]),
        (lambda layer: layer.name.startswith("unit_1"), ["body/unit_1_conv", "body/unit_1_bn", "body/unit_1_relu"]),
        (["top_out", "unit_out"], ["body/unit_out", "top_out"]),
        (["body/stem_relu", "body"], ["body", "body/stem_relu"]),
    ],
    ids=["pattern", "anchored", "type", "function", "names", "paths"],
)
def test_where(where, expected):
    model = randomized(nested_model())
    assert sorted(places(model, where)) == sorted(expected)
    result = insert_squeeze_excite(model, where)
    assert sorted(block.name for block in blocks_of(result)) == sorted(f"{x.split('/')[-1]}_se" for x in expected)
    assert relative_difference(model, result) <= 1e-5


def test_layers_that_a_pattern_fits_and_that_give_no_map_are_reported():
    positions = {position.layer: position for position in find_positions(sequential(), ".")}
    assert not positions["conv1"].obstacle
    assert positions["flatten"].obstacle
    assert "rank 3 to 5" in str(positions["head"])
    assert str(positions["conv1"]) == "SE after conv1: chosen by the pattern '.'"
    assert isinstance(positions["conv1"], Position)


def test_config_of_the_blocks():
    se = SEConfig(
        reduction=4,
        squeeze="avgmax",
        gate_activation="hard_sigmoid",
        gate_init="identity",
        use_bias=False,
        squeeze_divisor=1,
    )
    model = randomized(sequential())
    result = insert_squeeze_excite(model, se=se)
    assert [block.reduce_kernel.shape[1] for block in blocks_of(result)] == [4, 5]
    assert {block.squeeze for block in blocks_of(result)} == {"avgmax"}
    assert relative_difference(model, result) <= 1e-5
    assert relative_difference(model, insert_squeeze_excite(model, se=SEConfig())) > 1e-3


def test_narrow_maps_keep_some_units_and_dtypes_are_the_layers():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="conv1", dtype="mixed_float16")(inputs)
    model = keras.Model(inputs, layers.Conv2D(6, 3, activation="relu", name="conv2")(x))
    first, second = blocks_of(insert_squeeze_excite(model))
    assert tuple(first.reduce_kernel.shape) == (6, 2)
    assert first.dtype_policy.name == "mixed_float16"
    assert second.dtype_policy.name == "float32"


def test_units_start_in_pairs_of_opposite_sign():
    (block, _) = blocks_of(insert_squeeze_excite(sequential(), se=SEConfig(reduction=3, gate_init="identity")))
    kernel = values_of([block.reduce_kernel])[0]
    assert kernel.shape == (16, 5)
    np.testing.assert_array_equal(kernel[:, :2], -kernel[:, 2:4])
    assert np.abs(kernel[:, 4]).min() > 0


def test_channels_first():
    keras.config.set_image_data_format("channels_first")
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    branch = layers.BatchNormalization(axis=1, name="bn")(layers.Conv2D(16, 3, padding="same", name="conv")(x))
    x = layers.Concatenate(axis=1, name="concat")([layers.Add(name="add")([x, branch]), x])
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    keras.config.set_image_data_format("channels_last")
    blocks = blocks_of(insert_squeeze_excite(model))
    assert [block.name for block in blocks] == ["bn_se", "add_se"]
    assert {block.data_format for block in blocks} == {"channels_first"}
    assert {tuple(block.expand_kernel.shape) for block in blocks} == {(2, 16)}


def test_chains_are_what_the_docstring_says():
    inputs = keras.Input((8, 8, 16))
    branches = [
        layers.Conv2D(16, size, padding="same", activation="relu", name=f"conv{size}")(inputs) for size in (1, 3)
    ]
    x = layers.Concatenate(name="module")(branches)
    new = layers.Conv2D(16, 3, padding="same", name="new")(layers.BatchNormalization(name="before")(x))
    x = layers.Concatenate(name="dense")([x, new])
    wide = layers.Conv2D(96, 1, activation="relu6", name="widen")(x)
    wide = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(wide)
    wide = layers.ReLU(6.0, name="relu")(layers.BatchNormalization(name="norm")(wide))
    x = layers.Add(name="add")([x, layers.Conv2D(48, 1, name="narrow")(wide)])
    assert places(keras.Model(inputs, x)) == ["module", "new", "relu"]


def test_a_depthwise_separable_convolution_is_one_group():
    inputs = keras.Input((8, 8, 16))
    x = layers.ReLU(name="relu1")(layers.DepthwiseConv2D(3, name="depthwise")(inputs))
    x = layers.ReLU(name="relu2")(layers.Conv2D(32, 1, name="pointwise")(x))
    assert places(keras.Model(inputs, x)) == ["relu2"]


# Networks that have SE.


@pytest.mark.parametrize("position", ["standard", "pre", "post", "identity", "conv3x3"])
def test_networks_with_se_are_reported_and_not_doubled(position):
    model = se_keras.SEResNet20(weights=None, input_shape=(8, 8, 3), se=SEConfig(position=position))
    positions = find_positions(model)
    assert len(positions) == 9
    assert all(position.obstacle == "it already has SE" for position in positions)
    with pytest.warns(UserWarning, match="already has SE at each position"):
        again = insert_squeeze_excite(model)
    assert len(blocks_of(again)) == 9
    assert relative_difference(model, again) <= 1e-6


def test_inserting_twice_inserts_once():
    once = insert_squeeze_excite(nested_model())
    with pytest.warns(UserWarning, match="nothing was inserted"):
        assert len(blocks_of(insert_squeeze_excite(once))) == 2
    with pytest.warns(UserWarning, match="it already has SE"):
        insert_squeeze_excite(once, "top_2_bn$")
    with pytest.warns(UserWarning, match="it already has SE"):
        insert_squeeze_excite(once, ["top_2_bn_se"])
    model = se_keras.SEResNet20(weights=None, input_shape=(8, 8, 3), se=SEConfig(stages=(2,)))
    assert len(blocks_of(insert_squeeze_excite(model))) == 9


def test_se_made_of_ordinary_layers_is_seen():
    inputs = keras.Input((8, 8, 16))
    x = layers.Conv2D(16, 3, padding="same", name="conv")(inputs)
    gate = layers.Reshape((1, 1, 16))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Dense(16, activation="sigmoid")(layers.Dense(4, activation="relu")(gate))
    x = layers.Add(name="add")([inputs, layers.Multiply(name="product")([x, gate])])
    with pytest.warns(UserWarning, match="nothing was inserted"):
        assert blocks_of(insert_squeeze_excite(keras.Model(inputs, x))) == []


# Bad input.


def test_no_place():
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")])
    with pytest.raises(ValueError, match=r"No standard position.*Looked for: .*additions.*`where`"):
        insert_squeeze_excite(dense)
    with pytest.raises(ValueError, match="No position for SE blocks was found"):
        insert_squeeze_excite(dense, "dense")
    with pytest.raises(ValueError, match=r"cannot follow 'dense'.*rank 3 to 5"):
        insert_squeeze_excite(dense, ["dense"])


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def test_models_without_a_graph():
    with pytest.raises(ValueError, match=r"Only functional models.*Subclassed.*keras.Input"):
        insert_squeeze_excite(Subclassed())
    with pytest.raises(ValueError, match="Only functional models"):
        insert_squeeze_excite(keras.Sequential([layers.Conv2D(16, 3)]), "conv")
    with pytest.raises(ValueError, match=r"must be a Keras model; received 'net.keras'\. Load a file"):
        insert_squeeze_excite("net.keras")


@pytest.mark.parametrize("where", ["stage9", layers.Conv3D, lambda layer: False, ["conv1", "conv9"]])
def test_nothing_fits(where):
    with pytest.raises(ValueError, match=r"No layers of .*Its layers: conv1, conv2"):
        insert_squeeze_excite(sequential(), where)


@pytest.mark.parametrize("where", ["^body_image$", ["body_image"], layers.InputLayer])
def test_an_input_is_no_place(where):
    with pytest.raises(ValueError, match=r"\['body_image'\] of 'body' is an input"):
        insert_squeeze_excite(backbone(), where)


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="regular expression"):
        insert_squeeze_excite(sequential(), "conv(")
    for where in (3, [], [3], None):
        with pytest.raises(TypeError, match="`where` must be 'auto'"):
            insert_squeeze_excite(sequential(), where)
    for se in (SEConfig(position="pre"), SEConfig(stages=(3,))):
        with pytest.raises(ValueError, match="`where` determines"):
            insert_squeeze_excite(sequential(), se=se)


# keras.applications.


def shapes_of_blocks(model):
    return [tuple(block.input.shape[1:]) for block in model.layers if isinstance(block, SqueezeExcite)]


@pytest.mark.slow
def test_resnet50_becomes_se_resnet50(producers):
    base = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    result = insert_squeeze_excite(base)
    original = se_keras.SEResNet50(weights=None, input_shape=(64, 64, 3))
    assert shapes_of_blocks(result) == shapes_of_blocks(original)
    parts = [sum(block.count_params() for block in blocks_of(model)) for model in (result, original)]
    assert parts[0] == parts[1]
    assert result.count_params() == base.count_params() + parts[0]
    # Each block stands between the last norm of a branch and the addition, in both.
    for model in (result, original):
        before = producers(model)
        for block in blocks_of(model):
            assert isinstance(model.get_layer(before[block.name][0]), layers.BatchNormalization)
            takers = [name for name, sources in before.items() if block.name in sources]
            assert [type(model.get_layer(name)) for name in takers] == [layers.Add]


NETWORKS = {  # smallest size, number of new blocks, an SE block's name
    "ResNet50": (32, 16, "conv2_block1_3_bn_se"),
    "ResNet50V2": (32, 16, "conv5_block3_3_conv_se"),
    "MobileNetV2": (32, 17, "block_3_depthwise_relu_se"),
    "MobileNetV3Large": (32, 7, "expanded_conv_project_bn_se"),
    "InceptionV3": (75, 11, "mixed9_se"),
    "InceptionResNetV2": (75, 43, "block35_1_conv_se"),
    "DenseNet121": (32, 58, "conv2_block1_2_conv_se"),
    "EfficientNetB0": (32, 0, None),
    "VGG16": (32, 13, "block1_conv1_se"),
    "Xception": (71, 12, "block5_sepconv3_bn_se"),
    "ConvNeXtTiny": (32, 18, "convnext_tiny_stage_0_block_0_pointwise_conv_2_se"),
    "NASNetMobile": (32, 16, "normal_concat_0_se"),
    "MobileNet": (32, 14, "conv_pw_13_relu_se"),
}


# The others are tested with SE_KERAS_ALL_NETWORKS=1 (`make test-all`).
IN_CI = ("ResNet50V2", "MobileNetV2", "InceptionV3", "EfficientNetB0", "ConvNeXtTiny")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS if ALL else IN_CI)
def test_networks_of_keras_applications(name):
    size, count, block_name = NETWORKS[name]
    build = getattr(keras.applications, name)
    base = randomized(build(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)))
    with warnings.catch_warnings():
        if not count:
            warnings.simplefilter("ignore")
        result = insert_squeeze_excite(base, freeze_base=True)
    assert relative_difference(base, result) <= 1e-5
    blocks = blocks_of(result)
    assert len(blocks) == count
    names = {layer.name for layer in result.layers if layer not in blocks}
    assert names == {layer.name for layer in base.layers}
    if not count:
        return
    assert block_name in [block.name for block in blocks]
    starts = [values_of(block.trainable_variables) for block in blocks]
    frozen = values_of(result.non_trainable_variables)
    train_one_step(result)
    for block, start in zip(blocks, starts, strict=True):
        _, _, kernel, bias = (
            np.abs(a - b).max() for a, b in zip(values_of(block.trainable_variables), start, strict=True)
        )
        assert bias > 0, f"no gradient reaches {block.name}"
        assert kernel > 0, f"no gradient reaches the kernel of {block.name}"
    for value, old in zip(values_of(result.non_trainable_variables), frozen, strict=True):
        np.testing.assert_array_equal(value, old)


@pytest.mark.parametrize(
    "transpose",
    [layers.Permute((3, 1, 2)), lambda x: ops.transpose(x, (0, 3, 1, 2)), lambda x: ops.moveaxis(x, -1, 1)],
    ids=["permute", "transpose", "moveaxis"],
)
def test_blocks_after_a_transposition_gate_the_channels(transpose):
    inputs = keras.Input((8, 12, 3))
    x = transpose(layers.Conv2D(6, 3, name="conv")(inputs))
    x = layers.Permute((2, 3, 1), name="back")(layers.Activation("relu", name="act")(x))
    model = keras.Model(inputs, x)
    formats = {"conv": "channels_last", "act": "channels_first", "back": "channels_last"}
    for place, expected in formats.items():
        block = insert_squeeze_excite(model, where=[place]).get_layer(f"{place}_se")
        assert block.data_format == expected
    middle = keras.Model(inputs, layers.Permute((1, 3, 2), name="middle")(layers.Conv2D(6, 3)(inputs)))
    with pytest.raises(ValueError, match=r"first or the last axis after the batch; .* they are axis 2"):
        insert_squeeze_excite(middle, where=["middle"])


def test_a_layer_that_is_only_named_like_a_transposition():
    class Transpose(layers.Layer):
        def call(self, x):
            return ops.reshape(x, (-1, 6, 10, 6))

    inputs = keras.Input((8, 12, 3))
    model = keras.Model(inputs, layers.ReLU(name="act")(Transpose()(layers.Conv2D(6, 3)(inputs))))
    assert insert_squeeze_excite(model, where=["act"]).get_layer("act_se").data_format == "channels_last"
