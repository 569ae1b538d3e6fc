"""What every network can do: train, compute in half precision, give feature maps, take any size, and say no clearly."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from cases import ALL, CIFAR, ONE_OF_EACH, PAPER, QUICK, RESIDUAL, networks, smallest_size
from keras import layers, ops

import se_keras
from se_keras import SEConfig, SqueezeExcite, create_model
from se_keras.blocks.excitation import POSITIONS
from se_keras.models import builders
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS

BUILDERS = {function.__name__: function for function in vars(builders).values() if inspect.isfunction(function)}
BUILDERS = {name: function for name, function in BUILDERS.items() if function.__module__ == builders.__name__}
BUILDERS = {name: function for name, function in BUILDERS.items() if name[0].isupper()}
SMALL = ("se_resnet20", "se_wide_resnet16_8")


def photos(rng, size, batch=1):
    height, width = (size, size) if isinstance(size, int) else size
    return rng.integers(0, 256, size=(batch, height, width, 3)).astype("uint8")


def se_layers(model):
    return [layer for layer in model.layers if isinstance(layer, SqueezeExcite)]


@pytest.mark.parametrize("name", networks(quick=QUICK))
def test_one_training_step_changes_every_trainable_variable(name, rng):
    size = smallest_size(name)
    # At least 8 numbers between the projections: the paper's single one may be cut off by its ReLU for a whole batch.
    model = create_model(name, input_shape=(size, size, 3), classes=10, se=SEConfig(squeeze_divisor=8))
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False, run_eagerly=True)
    before = [ops.convert_to_numpy(variable).copy() for variable in model.trainable_variables]
    loss = model.train_on_batch(photos(rng, size, batch=8), np.arange(8))
    assert np.isfinite(loss)
    unchanged = [
        variable.path
        for variable, old in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(ops.convert_to_numpy(variable), old)
    ]
    assert unchanged == []
    assert all(np.isfinite(ops.convert_to_numpy(variable)).all() for variable in model.variables)


@pytest.mark.parametrize("name", networks(quick=("se_shufflenet", "se_resnet20")))
@pytest.mark.parametrize("policy", ["mixed_bfloat16"])
def test_half_precision_ends_in_float32(name, policy, rng):
    keras.config.set_dtype_policy(policy)
    size = smallest_size(name)
    model = create_model(name, input_shape=(size, size, 3), classes=10)
    probabilities = model(photos(rng, size, batch=2))
    assert keras.backend.standardize_dtype(probabilities.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(probabilities).sum(axis=1), 1, atol=1e-5)
    assert all(weight.dtype == "float32" for weight in model.weights)
    computing = [layer for layer in model.layers if isinstance(layer, layers.Conv2D | SqueezeExcite)]
    assert {layer.compute_dtype for layer in computing} == {"bfloat16"}


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_half_precision_features_end_as_documented(pooling):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = create_model("se_resnet20", include_top=False, pooling=pooling)
    outputs = model(np.zeros((1, 16, 16, 3), "uint8"))
    # A vector is for a classifier of the caller's own and is float32; a map goes on in half precision.
    assert keras.backend.standardize_dtype(outputs.dtype) == ("bfloat16" if pooling is None else "float32")


# Channels at the endpoints: stem, stage2, stage3, stage4, stage5.
TIMM_ONLY = ("se_resnet152d", "se_resnext26d", "se_resnext26t", "se_resnext101_32x8d", "se_resnext101d_32x8d")
BOTTLENECK = (64, 256, 512, 1024, 2048)
CHANNELS = {
    "se_resnet18": (64, 64, 128, 256, 512),
    "se_resnet34": (64, 64, 128, 256, 512),
    **dict.fromkeys(("se_resnet50", "se_resnet101", "se_resnet152", "se_resnet152d"), BOTTLENECK),
    **dict.fromkeys(("se_resnext26", "se_resnext26d", "se_resnext26t", "se_resnext50", "se_resnext101"), BOTTLENECK),
    **dict.fromkeys(("se_resnext101_64x4d", "se_resnext101_32x8d", "se_resnext101d_32x8d"), BOTTLENECK),
    **dict.fromkeys(TIMM_ONLY, BOTTLENECK),
    "se_resnext26": BOTTLENECK,
    "senet154": (128, 256, 512, 1024, 2048),
    "se_bn_inception": (64, 192, 320, 608, 1024),
    "se_inception_v3": (64, 192, 288, 768, 2048),
    "se_inception_resnet_v2": (64, 192, 320, 1088, 1536),
    "se_vgg16": (64, 128, 256, 512, 512),
    "se_mobilenet": (64, 128, 256, 512, 1024),
    "se_shufflenet": (24, 24, 240, 480, 960),
    **dict.fromkeys(("se_resnet20", "se_resnet32", "se_resnet44", "se_resnet56", "se_resnet110"), (16, 16, 32, 64)),
    "se_preresnet110": (16, 16, 32, 64),
    "se_preresnet164": (16, 64, 128, 256),
    "se_wide_resnet16_8": (16, 128, 256, 512),
}
# Inception-v3 and Inception-ResNet-v2 do not pad in their stems: the sizes that their papers give for 299x299.
INCEPTION_SIZES = (147, 71, 35, 17, 8)


@pytest.mark.parametrize("name", networks())
def test_feature_maps_have_the_documented_channels_and_sizes(name):
    cifar, unpadded = name in CIFAR, name in ("se_inception_v3", "se_inception_resnet_v2")
    size = 32 if cifar else 299 if unpadded else 224
    model = create_model(name, include_top=False, input_shape=(size, size, 3))
    endpoints = ["stem", "stage2", "stage3", "stage4", "stage5"][: len(CHANNELS[name])]
    features = se_keras.feature_extractor(model, endpoints)
    sizes = INCEPTION_SIZES if unpadded else [size // s for s in ((1, 1, 2, 4) if cifar else (2, 4, 8, 16, 32))]
    expected = {
        endpoint: (None, side, side, channels)
        for endpoint, side, channels in zip(endpoints, sizes, CHANNELS[name], strict=True)
    }
    assert {endpoint: tensor.shape for endpoint, tensor in features.output.items()} == expected
    default = [endpoint for endpoint in endpoints if endpoint != "stem"]
    assert list(se_keras.feature_extractor(model).output) == default


def test_every_network_has_its_channels_in_the_table():
    assert set(CHANNELS) == set(PAPER)


def halved(rules, size):
    """The size after steps of 2: rounded "u"p (padding on both sides) or "d"own, or as "v"alid 3x3 layers cut it."""
    for rule in rules:
        size = {"u": -(-size // 2), "d": size // 2, "v": (size - 3) // 2 + 1, "-": size - 2}[rule]
    return size


# The authors' stem pooling rounds down on odd sizes, torch's and all convolutions round up.
ROUNDING = {
    **dict.fromkeys(NETWORKS, "uduuu"),
    **dict.fromkeys(CIFAR, "uu"),
    **dict.fromkeys(("se_inception_v3", "se_inception_resnet_v2"), "v-v-vvv"),
    **dict.fromkeys(TIMM_ONLY, "uuuuu"),
    "se_bn_inception": "udduu",
    "se_vgg16": "ddddd",
    "se_mobilenet": "udddd",
    "se_shufflenet": "uuuuu",
}


@pytest.mark.parametrize("name", networks())
def test_any_size_goes_through_without_the_classifier(name, rng):
    model = create_model(name, include_top=False)
    assert model.input_shape == (None, None, None, 3)
    least = smallest_size(name)
    for height, width in ((least, least), (least + 21, least + 8)):  # odd and even, not square
        outputs = model(photos(rng, (height, width)))
        rules = ROUNDING[name]
        assert outputs.shape == (1, halved(rules, height), halved(rules, width), CHANNELS[name][-1])
        assert np.isfinite(ops.convert_to_numpy(outputs)).all()


@pytest.mark.parametrize("name", networks(quick=("se_resnet20", "se_mobilenet")))
def test_the_classifier_takes_any_size_but_for_vgg(name, rng):
    if name == "se_vgg16":
        message = r"dense layers of se_vgg16 need a fixed input size; received input_shape=\(None, None, 3\)\. Set"
        with pytest.raises(ValueError, match=message):
            create_model(name, input_shape=(None, None, 3))
        return
    model = create_model(name, input_shape=(None, None, 3), classes=7)
    size = smallest_size(name)
    assert model(photos(rng, (size + 5, size + 1))).shape == (1, 7)


@pytest.mark.parametrize("name", networks(quick=SMALL))
def test_defaults_are_the_published_ones(name):
    model = create_model(name)
    network = NETWORKS[name]
    size = network.preprocessing.size
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, 10 if name in CIFAR else 1000)
    assert model.name == name
    assert model.layers[-1].activation is keras.activations.softmax
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)}
    assert rates == {
        "senet154": {"dropout": 0.2},
        "se_inception_v3": {"dropout": 0.2},
        "se_inception_resnet_v2": {"dropout": 0.2},
        "se_vgg16": {"fc1_dropout": 0.5, "dropout": 0.5},
        "se_mobilenet": {"dropout": 1e-3},
    }.get(name, {})


# The number of blocks by stage: one a residual unit, concatenation, convolution of VGG, pointwise convolution.
BLOCKS = {
    **dict.fromkeys(("se_resnet18", "se_resnext26", "se_resnext26d", "se_resnext26t"), 8),
    "se_resnet34": 16,
    **dict.fromkeys(("se_resnet50", "se_resnext50"), 16),
    **dict.fromkeys(("se_resnet101", "se_resnext101", "se_resnext101_64x4d"), 33),
    **dict.fromkeys(("se_resnext101_32x8d", "se_resnext101d_32x8d"), 33),
    **dict.fromkeys(("se_resnet152", "se_resnet152d", "senet154"), 50),
    "se_bn_inception": 10,
    "se_inception_v3": 11,
    "se_inception_resnet_v2": 43,
    "se_vgg16": 13,
    "se_mobilenet": 13,
    "se_shufflenet": 16,
    "se_resnet20": 9,
    "se_resnet32": 15,
    "se_resnet44": 21,
    "se_resnet56": 27,
    "se_resnet110": 54,
    "se_preresnet110": 54,
    "se_preresnet164": 54,
    "se_wide_resnet16_8": 6,
}


@pytest.mark.parametrize("name", networks(quick=("se_resnet50", *SMALL)))
def test_number_of_se_blocks(name, built):
    assert built(name).info.se_blocks == BLOCKS[name]


@pytest.mark.parametrize("name", networks(quick=("se_resnet50", *SMALL)))
def test_plain_network_differs_by_the_se_blocks_only(name, built):
    carrying, plain = built(name), built(name, se=None)
    assert plain.info.se_blocks == 0
    assert set(plain.tree) == {path for path in carrying.tree if "_se/" not in path}
    assert all(carrying.tree[path] == shape for path, shape in plain.tree.items())
    assert {layer for layer in carrying.layer_names if not layer.endswith("_se")} == set(plain.layer_names)


# What keras.applications' arguments do here.


def test_signature_is_that_of_keras_applications_and_three_more():
    theirs = list(inspect.signature(keras.applications.ResNet50).parameters)
    for name, builder in BUILDERS.items():
        parameters = inspect.signature(builder).parameters
        assert list(parameters) == [*theirs, "se", "include_preprocessing", "dropout"], name
        assert [p.kind for p in parameters.values()][-3:] == [inspect.Parameter.KEYWORD_ONLY] * 3


def test_every_network_has_a_builder_of_its_name():
    assert len(BUILDERS) == len(NETWORKS)
    defaults = {inspect.signature(builder).parameters["name"].default: name for name, builder in BUILDERS.items()}
    assert set(defaults) == set(NETWORKS)
    for identifier, name in defaults.items():
        plain = name.lower().replace("_", "")
        assert identifier.replace("_", "") in (plain, f"{plain}100")
        assert getattr(se_keras, name) is BUILDERS[name]


def test_builder_and_registry_build_the_same():
    options = {"classes": 7, "dropout": 0.25, "se": SEConfig(reduction=8), "input_shape": (None, None, 3)}
    first = se_keras.SEResNet20(**options)
    second = create_model("se_resnet20", **options)
    assert [v.path for v in first.weights] == [v.path for v in second.weights]
    assert first.get_config() == second.get_config()


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "shape"), [(None, (None, 8, 8, 64)), ("avg", (None, 64)), ("max", (None, 64))])
def test_pooling_without_the_classifier(pooling, shape, rng):
    model = se_keras.SEResNet20(include_top=False, pooling=pooling, input_shape=(32, 32, 3))
    assert model.output_shape == shape
    assert model.layers[-1].name == ("stage4" if pooling is None else "pooled")
    if pooling:
        x = photos(rng, 32)
        feature_map = ops.convert_to_numpy(se_keras.feature_extractor(model, ["stage4"])(x)["stage4"])
        expected = {"avg": feature_map.mean((1, 2)), "max": feature_map.max((1, 2))}[pooling]
        np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, rtol=1e-5, atol=1e-6)


def test_pooling_has_no_effect_with_the_classifier():
    assert se_keras.SEResNet20(pooling="max").get_config() == se_keras.SEResNet20().get_config()


def test_classes_and_activation(rng):
    x = photos(rng, 32, batch=2)
    model = se_keras.SEResNet20(classes=7)
    logits = se_keras.SEResNet20(classes=7, classifier_activation=None)
    logits.set_weights(model.get_weights())
    assert (model.output_shape, logits.output_shape) == ((None, 7), (None, 7))
    assert (model.layers[-1].name, logits.layers[-1].name) == ("predictions", "logits")
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(x)), ops.convert_to_numpy(ops.softmax(logits(x))), rtol=1e-5, atol=1e-7
    )
    sigmoid = se_keras.SEResNet20(classes=7, classifier_activation="sigmoid")
    assert sigmoid.layers[-1].activation is keras.activations.sigmoid


def test_dropout_replaces_the_default():
    def rates(model):
        return [layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)]

    assert rates(se_keras.SEResNet20()) == []
    assert rates(se_keras.SEResNet20(dropout=0.3)) == [0.3]
    assert rates(create_model("se_mobilenet", dropout=0.0)) == []
    assert rates(create_model("se_mobilenet")) == [1e-3]


def test_input_tensor_becomes_the_images(rng):
    inputs = keras.Input((40, 40, 3), name="photo")
    cropped = layers.Cropping2D(4)(inputs)
    model = se_keras.SEResNet20(input_tensor=cropped)
    plain = se_keras.SEResNet20(input_shape=(32, 32, 3))
    plain.set_weights(model.get_weights())
    assert model.input_shape == (None, 40, 40, 3)
    assert se_keras.model_info(model).total == se_keras.model_info(plain).total
    x = photos(rng, 40)
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), ops.convert_to_numpy(plain(x[:, 4:-4, 4:-4])))


def test_input_tensor_may_be_an_input_itself():
    inputs = keras.Input((32, 32, 3), name="photo")
    model = se_keras.SEResNet20(input_tensor=inputs, input_shape=(32, 32, 3))
    assert model.input is inputs


@pytest.mark.slow
def test_name_and_several_in_one_program():
    first, second = se_keras.SEResNet20(name="left"), se_keras.SEResNet20(name="right")
    assert (first.name, second.name) == ("left", "right")
    inputs = keras.Input((32, 32, 3))
    ensemble = keras.Model(inputs, layers.Average()([first(inputs), second(inputs)]))
    assert ensemble(np.zeros((1, 32, 32, 3), "uint8")).shape == (1, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, r"`classes` must be an integer of at least 1; received classes=0"),
        ({"classes": 2.5}, r"`classes` must be an integer of at least 1; received classes=2\.5"),
        ({"classes": True}, r"`classes` must be an integer of at least 1; received classes=True"),
        ({"pooling": "mean", "include_top": False}, r"Unknown pooling 'mean'.*Options: 'avg', 'max'"),
        ({"dropout": 1.0}, r"`dropout` must be at least 0 and below 1; received dropout=1\.0"),
        ({"dropout": -0.1}, r"`dropout` must be at least 0 and below 1; received dropout=-0\.1"),
        ({"input_shape": (4, 4, 3)}, r"at least 8x8 pixels; received input_shape=\(4, 4, 3\)"),
        ({"input_shape": (32, 32)}, r"must have 3 numbers, \(height, width, channels\); received .*\(32, 32\)"),
        ({"input_shape": (3, 32, 32)}, r"at least 8x8 pixels; received input_shape=\(3, 32, 32\) \(channels_last\)"),
        ({"input_shape": 32}, r"must have 3 numbers, \(height, width, channels\); received input_shape=32\."),
        ({"input_shape": (32, 32, None)}, r"must state the number of channels; received \(32, 32, None\)"),
        ({"input_shape": (32, 32, 0)}, r"`input_shape\[2\]` must be an integer .*; received input_shape\[2\]=0"),
        ({"input_tensor": np.zeros((1, 32, 32, 3))}, r"output of a Keras layer or `keras\.Input`; received ndarray"),
        ({"se": "standard"}, r"`se` must be an SEConfig, or None for the plain network; received se='standard'"),
        ({"se": SEConfig(stages=(4, 5))}, r"se_resnet20 can have SE in stages \(2, 3, 4\); received stages=\(4, 5\)"),
        ({"se": SEConfig(reduction=32)}, r"received reduction=32 for a block of 16 channels\. Lower `reduction`"),
        ({"weights": "cifar11"}, r"Unknown weights of 'se_resnet20' 'cifar11'.*cifar10"),
        ({"weights": "missing/file.weights.h5"}, r"There is no weights file at 'missing/file\.weights\.h5'"),
    ],
)
def test_bad_argument_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        se_keras.SEResNet20(**options)


def test_input_shape_and_tensor_must_agree():
    inputs = keras.Input((32, 32, 3))
    with pytest.raises(ValueError, match=r"must match `input_tensor`; received \(64, 64, 3\) and \(32, 32, 3\)"):
        se_keras.SEResNet20(input_tensor=inputs, input_shape=(64, 64, 3))


def test_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match=r"argument of create_model 'num_classes'\. Did you mean 'classes'\?"):
        create_model("se_resnet20", num_classes=5)


def test_classes_without_a_classifier_are_ignored_as_by_keras_applications():
    for weights in (None, "cifar10"):
        model = se_keras.SEResNet20(include_top=False, pooling="avg", classes=5, weights=weights)
        assert model.output_shape == (None, 64)


# Preprocessing inside the model.

PREPROCESSED = ("se_resnet20", "se_mobilenet", "se_resnet50", "se_inception_v3")


@pytest.mark.parametrize("name", networks(ONE_OF_EACH if ALL else PREPROCESSED, quick=("se_resnet20", "se_mobilenet")))
def test_preprocessing_inside_equals_normalizing_by_hand(name, rng):
    size = smallest_size(name)
    options = {"input_shape": (size, size, 3), "classes": 10, "classifier_activation": None}
    inside = create_model(name, **options)
    outside = create_model(name, include_preprocessing=False, **options)
    outside.set_weights(inside.get_weights())
    x = photos(rng, size, batch=2)
    # In two steps, because a hundred fresh layers would amplify the last bit of the normalized images.
    normalized = se_keras.feature_extractor(inside, ["preprocessing"])(x)["preprocessing"]
    by_hand = se_keras.get_preprocessing(name).normalize(x)
    np.testing.assert_allclose(ops.convert_to_numpy(normalized), by_hand, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(outside(normalized)), ops.convert_to_numpy(inside(x)))
    assert [layer.name for layer in inside.layers if layer.name == "preprocessing"] == ["preprocessing"]
    assert "preprocessing" not in [layer.name for layer in outside.layers]


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels_goes(channels):
    images = np.zeros((1, 32, 32, channels), "float32")
    for include_preprocessing in (False, True):
        model = se_keras.SEResNet20(input_shape=(32, 32, channels), include_preprocessing=include_preprocessing)
        assert model(images).shape == (1, 10)
    mean, means = model.get_layer("preprocessing").mean, se_keras.get_preprocessing("se_resnet20").mean
    assert mean == ((pytest.approx(sum(means) / 3),) if channels == 1 else (means * 2)[:channels])


# Every option of SEConfig on every residual network.

OPTIONS = {
    "reduction": SEConfig(reduction=4),
    "max": SEConfig(squeeze="max"),
    "avgmax": SEConfig(squeeze="avgmax"),
    "gelu": SEConfig(activation="gelu"),
    "hard_sigmoid": SEConfig(gate_activation="hard_sigmoid"),
    "tanh": SEConfig(gate_activation="tanh"),
    "relu": SEConfig(gate_activation="relu"),
    "no bias": SEConfig(use_bias=False),
    "stages": SEConfig(stages=(3, 4)),
    "divisor": SEConfig(squeeze_divisor=8),
    "identity start": SEConfig(gate_init="identity"),
    **{position: SEConfig(position=position) for position in POSITIONS},
}


def on_small_networks():
    """Every option on the smallest network."""
    yield from (("se_resnet20", option) for option in OPTIONS)


def on_every_unit():
    """The options that decide where and how wide the blocks are, on every kind of residual unit."""
    for name in RESIDUAL if ALL else ("se_resnet18", "se_resnet50"):
        for option in ("stages", "divisor", *POSITIONS):
            if name != "se_resnet20":
                yield pytest.param(name, option, marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "option"), [*on_small_networks(), *on_every_unit()])
def test_option_of_se_config(name, option, rng):
    config = OPTIONS[option]
    if config.position not in NETWORKS[name].positions:
        message = rf"{name} does not support position='{config.position}'; it supports: standard, pre, post, identity"
        with pytest.raises(ValueError, match=message):
            create_model(name, se=config)
        return
    size = smallest_size(name)
    model = create_model(name, se=config, input_shape=(size, size, 3), classes=10)
    blocks = se_layers(model)
    units = {"_".join(layer.name.split("_")[:2]) for layer in model.layers if "_block" in layer.name}
    stages = {int(layer.name[5]) for layer in blocks}
    assert stages == set(config.stages or NETWORKS[name].stages)
    assert {layer.name for layer in blocks} == {f"{name}_se" for name in units if int(name[5]) in stages}
    for layer in blocks:
        found = (layer.reduction, layer.squeeze, layer.gate_activation.__name__, layer.use_bias, layer.gate_init)
        stated = config.completed()
        expected = (stated.reduction, stated.squeeze, stated.gate_activation, stated.use_bias, stated.gate_init)
        assert found == expected
        channels, width = layer.reduce_kernel.shape
        assert width % (config.squeeze_divisor or 1) == 0
        assert width == channels // stated.reduction or config.squeeze_divisor
    # As in training: a fresh network's statistics do not hold back gates that may exceed 1.
    outputs = ops.convert_to_numpy(model(photos(rng, size, batch=2), training=True))
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in PAPER if len(NETWORKS[name].positions) == 1])
@pytest.mark.parametrize("position", [position for position in POSITIONS if position != "standard"])
def test_other_networks_refuse_the_positions_of_residual_units(name, position):
    message = rf"{name} does not support position='{position}'; it supports: standard\."
    with pytest.raises(ValueError, match=message):
        create_model(name, se=SEConfig(position=position))


@pytest.mark.parametrize("name", networks(RESIDUAL, quick=("se_resnet20",)))
def test_identity_start_equals_the_plain_network(name, rng):
    size = smallest_size(name)
    options = {"input_shape": (size, size, 3), "classes": 10}
    plain = create_model(name, se=None, **options)
    carrying = create_model(name, se=SEConfig(gate_init="identity"), **options)
    values = {variable.path: variable for variable in plain.variables}
    for variable in carrying.variables:
        if variable.path in values:
            variable.assign(values[variable.path])
    x = photos(rng, size, batch=2)
    np.testing.assert_array_equal(ops.convert_to_numpy(carrying(x)), ops.convert_to_numpy(plain(x)))


# Lineages: same name, other structure.


@pytest.mark.parametrize("name", ["se_resnet18", "se_resnet50"])
def test_timm_lineage_moves_the_step_the_pooling_and_the_width(name):
    network = NETWORKS[name]
    official, timm = (assemble(name, network, Options(), lineage=lineage) for lineage in (None, "timm"))
    assert official.get_layer("stem_pool_pad").padding == ((0, 1), (0, 1))
    assert timm.get_layer("stem_pool_pad").padding == ((1, 1), (1, 1))
    width = {"se_resnet18": (4, 8), "se_resnet50": (16, 16)}[name]
    assert tuple(m.get_layer("stage2_block1_se").reduce_kernel.shape[1] for m in (official, timm)) == width
    steps = [[m.get_layer(f"stage3_block1_conv{i}").strides[0] for i in (1, 2)] for m in (official, timm)]
    assert steps == ([[2, 1], [2, 1]] if name == "se_resnet18" else [[2, 1], [1, 2]])


def test_legacy_lineage_of_resnet18_has_the_extra_relu():
    legacy = assemble("se_resnet18", NETWORKS["se_resnet18"], Options(), lineage="legacy")
    assert legacy.get_layer("stage2_block1_relu2").output.shape == (None, 56, 56, 64)
    assert "stage2_block1_relu2" not in [layer.name for layer in create_model("se_resnet18").layers]


def test_unknown_lineage_is_refused():
    with pytest.raises(ValueError, match=r"Unknown lineage 'tim'\. Did you mean 'timm'\? Options: 'timm', 'legacy'"):
        assemble("se_resnet18", NETWORKS["se_resnet18"], Options(), lineage="tim")


# Weights of the caller's own.


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_weights_from_a_file(ending, tmp_path, rng):
    path = tmp_path / f"mine{ending}"
    model = se_keras.SEResNet20(classes=7)
    (model.save if ending == ".keras" else model.save_weights)(path)
    x = photos(rng, 32)
    for weights in (path, str(path)):
        loaded = se_keras.SEResNet20(classes=7, weights=weights)
        np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(model(x)))


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".safetensors"])
def test_grey_network_from_its_own_file(ending, tmp_path, rng):
    path = tmp_path / f"gray{ending}"
    gray = se_keras.SEResNet20(input_shape=(32, 32, 1), weights="cifar10")
    write = {".keras": gray.save, ".weights.h5": gray.save_weights}
    write.get(ending, lambda path: se_keras.save_safetensors(gray, path))(path)
    x = photos(rng, 32)[..., :1]
    se = SEConfig(reduction=4)  # the checkpoint's
    loaded = se_keras.SEResNet20(input_shape=(32, 32, 1), weights=path, se=se)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(gray(x)))
    if ending == ".safetensors":  # which states its channels
        assert se_keras.SEResNet20(weights=path, se=se).input_shape == (None, 32, 32, 1)
        rgb = se_keras.SEResNet20(weights=path, se=se, input_shape=(32, 32, 3))
        assert len(rgb.get_layer("preprocessing").mean) == 3  # the one mean three times


def test_weights_of_another_ending_or_network_are_refused(tmp_path):
    path = tmp_path / "mine.h5"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"Unknown kind of weights file '\.h5'.*'\.weights\.h5', '\.keras'"):
        se_keras.SEResNet20(weights=path)
    path = tmp_path / "broken.keras"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"broken\.keras' is damaged or not a valid \.keras file"):
        se_keras.SEResNet20(weights=path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One network with 7 classes as a file of either kind."""
    folder = tmp_path_factory.mktemp("saved")
    model = se_keras.SEResNet20(classes=7)
    model.save(folder / "mine.keras")
    model.save_weights(folder / "mine.weights.h5")
    return folder


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
@pytest.mark.parametrize(
    ("builder", "options", "missing", "left_over"),
    [
        (se_keras.SEResNet20, {"classes": 10}, 2, 2),
        pytest.param(se_keras.SEResNet20, {"classes": 7, "se": None}, 0, 36, marks=pytest.mark.slow),
        (se_keras.SEResNet20, {"classes": 7, "se": SEConfig(use_bias=False)}, 0, 18),
        pytest.param(se_keras.SEResNet20, {"include_top": False}, 0, 2, marks=pytest.mark.slow),
        (se_keras.SEResNet32, {"classes": 7}, 84, 0),
    ],
)
def test_weights_of_another_structure_are_refused(ending, builder, options, missing, left_over, saved):
    # Keras alone loads what fits and leaves the rest: SE weights into a plain network would pass unnoticed.
    message = (
        rf"'.*mine\{ending[:8]}.*arrays, {missing} have no counterpart.*143, {left_over} have none in the model\. Build"
    )
    with pytest.raises(ValueError, match=message):
        builder(weights=saved / f"mine{ending}", **options)


def test_keras_file_of_another_structure_and_the_same_shapes_is_refused(tmp_path):
    se_keras.SEResNet20(se=SEConfig(gate_activation="tanh")).save(tmp_path / "tanh.keras")
    with pytest.raises(
        ValueError, match=r"another structure(?s:.*)Hint: .* with the `se`, that the weights were saved"
    ):
        se_keras.SEResNet20(weights=tmp_path / "tanh.keras")


@pytest.mark.slow
def test_weights_of_a_compiled_and_trained_model_load(tmp_path, rng):
    model = se_keras.SEResNet20(classes=3, dropout=0.5)  # a seed and the optimizer's state are in the file too
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True, jit_compile=False)
    model.train_on_batch(photos(rng, 32, batch=2), np.arange(2))
    for ending in (".weights.h5", ".keras"):
        path = tmp_path / f"mine{ending}"
        (model.save if ending == ".keras" else model.save_weights)(path)
        loaded = se_keras.SEResNet20(classes=3, dropout=0.5, weights=path)
        assert all(np.array_equal(a, b) for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True))


# Channels first, which TensorFlow's CPU kernels cannot run: on JAX, in a process of its own.

CHANNELS_FIRST_TESTED = ("se_resnext50", "se_bn_inception")
CHANNELS_FIRST = """
    import sys
    import keras, numpy as np, jax
    import se_keras, warm_python

    warm_python.draw_with_numpy()
    rng = np.random.default_rng(0)
    for name, size in {cases}:
        models = []
        for layout, shape in (("channels_last", (size, size, 3)), ("channels_first", (3, size, size))):
            keras.config.set_image_data_format(layout)
            models.append(se_keras.create_model(name, input_shape=shape, classes=10, classifier_activation=None))
        last, first = models
        x = rng.integers(0, 256, size=(16, size, size, 3)).astype("uint8")
        for variable in last.trainable_variables:
            variable.assign(variable + 0.1 * rng.normal(size=variable.shape))
        for layer in last.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.0  # the statistics become this batch's: else fifty fresh layers amplify rounding
        trainable, other = ([v.value for v in vs] for vs in (last.trainable_variables, last.non_trainable_variables))
        _, other = jax.jit(lambda a, b, x: last.stateless_call(a, b, x, training=True))(trainable, other, x)
        for variable, value in zip(last.non_trainable_variables, other, strict=True):
            variable.assign(value)
        first.set_weights(last.get_weights())
        assert [v.path for v in first.weights] == [v.path for v in last.weights]
        expected = np.asarray(jax.jit(last)(x))
        found = np.asarray(jax.jit(first)(x.transpose(0, 3, 1, 2)))
        # Rounding, amplified by up to 200 layers; a wrong axis anywhere changes every number altogether.
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3 * np.abs(expected).max(), err_msg=name)
        print(name, "agrees", flush=True)
"""


@pytest.mark.parametrize("names", [("se_shufflenet",), ONE_OF_EACH if ALL else CHANNELS_FIRST_TESTED])
@pytest.mark.slow
def test_channels_first_equals_channels_last_on_jax(names, run_warm):
    cases = [(name, smallest_size(name)) for name in names]
    printed = run_warm(CHANNELS_FIRST.format(cases=cases), "jax")
    assert printed.split("\n")[:-1] == [f"{name} agrees" for name in names]
