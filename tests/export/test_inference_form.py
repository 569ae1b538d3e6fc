"""What is written was compared with the model first."""

import keras
import numpy as np
import pytest
from keras import layers
from small_networks import answers, shortened

import se_keras
from se_keras.export import inference_form as module
from se_keras.export.inference_form import in_single_precision, inference_form, relative_difference
from se_keras.export.inputs import random_images
from se_keras.layers import ImagePreprocessing
from se_keras.surgery import deploy
from se_keras.surgery.graph import build_model


def test_form_computes_the_same():
    model = se_keras.SEResNet20(include_top=False, input_shape=(None, None, 3))
    form = inference_form(model)
    x = np.random.default_rng(0).uniform(0, 255, (1, 40, 32, 3)).astype("float32")
    assert relative_difference(answers(form, x), answers(model, x)) < 1e-5
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in form.layers)


def test_form_that_answers_differently_is_not_written(monkeypatch):
    def broken(graph):
        model = build_model(graph)
        model.get_layer("logits").bias.assign(np.full(10, 0.5) * np.arange(10))
        return model

    monkeypatch.setattr(module, "build_model", broken)
    with pytest.raises(ValueError, match="The outputs of the deployed form"):
        inference_form(se_keras.SEResNet20())


def test_a_form_of_nan_is_not_written(monkeypatch):
    def broken(graph):
        model = build_model(graph)
        model.get_layer("logits").bias.assign(np.full(10, np.nan))
        return model

    monkeypatch.setattr(module, "build_model", broken)
    with pytest.raises(ValueError, match="The outputs of the deployed form"):
        inference_form(se_keras.SEResNet20())


def chaotic():
    """A model whose answers turn on the last bits of its map's mean."""
    inputs = keras.Input((32, 32, 3))
    convolution = layers.Conv2D(8, 3, use_bias=False)
    norm = layers.BatchNormalization()
    x = layers.GlobalAveragePooling2D()(norm(convolution(inputs)))
    model = keras.Model(inputs, keras.ops.sin(layers.Rescaling(1e4)(x)))
    norm.moving_mean.assign(np.linspace(0.1, 0.3, 8))
    return model


def test_what_rounding_alone_changes_is_no_difference():
    keras.utils.set_random_seed(0)
    model = chaotic()
    images = random_images((32, 32, 3), 2)
    rounded = relative_difference(*(np.asarray(form(images)) for form in (deploy(model), model)))
    assert rounded > module.LARGEST_DIFFERENCE  # else this test shows nothing
    assert inference_form(model).name == model.name


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_form_of_half_precision_is_in_float32_within_nested_models_too(policy, rng):
    keras.config.set_dtype_policy(policy)
    base = shortened("se_resnet20", include_top=False, input_shape=(32, 32, 3))
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, layers.Dense(3, name="new")(layers.GlobalAveragePooling2D()(base(inputs))))
    keras.config.set_dtype_policy("float32")
    single, form = in_single_precision(model), inference_form(model)
    for one in (single, form):
        assert {layer.compute_dtype for layer in one.layers} == {"float32"}
        assert {weight.dtype for weight in one.weights} == {"float32"}
    np.testing.assert_array_equal(single.get_layer("new").kernel, np.float32(model.get_layer("new").kernel))
    images = rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    assert relative_difference(answers(form, images), answers(single, images)) < 1e-5
    assert relative_difference(answers(single, images), np.float32(answers(model, images))) < 0.1


def test_model_in_float32_is_its_own_reference_and_so_is_a_quantized_one():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    model.layers[0].quantize("int8")
    assert in_single_precision(model) is model
    keras.config.set_dtype_policy("float32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    assert in_single_precision(model) is model


def test_relative_difference():
    assert relative_difference(np.array([1.0, 3.0]), np.array([1.0, 4.0])) == 0.25
    assert relative_difference(np.zeros(2), np.zeros(2)) == 0


def image_network(*following):
    inputs = x = keras.Input((8, 8, 3))
    for layer in (ImagePreprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)), *following):
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "following",
    [
        (layers.Conv2D(4, 3, padding="same"),),
        (layers.ZeroPadding2D(1), layers.Conv2D(4, 3, 2, use_bias=False)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2),),
    ],
)
def test_images_are_scaled_by_the_kernel(following):
    model = image_network(*following)
    _, form = module.float32_form(model)
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(answers(form.layers[1], x), x - 255 * np.array([0.5, 0.4, 0.3]), atol=1e-4)
    assert relative_difference(answers(form, x), answers(model, x)) < 1e-6


def both_read(images):
    return keras.Model(images.input, [images.output, layers.Conv2D(4, 3)(images.output)])


@pytest.mark.parametrize(
    "model",
    [
        lambda: image_network(layers.ReLU(), layers.Conv2D(4, 3)),
        lambda: image_network(layers.Conv2D(6, 3, groups=3)),
        lambda: image_network(layers.Flatten()),
        lambda: both_read(image_network()),
    ],
)
def test_images_keep_their_scale_where_a_kernel_cannot_take_it(model):
    _, form = module.float32_form(model())
    assert form.layers[1].std == (0.2, 0.3, 0.4)
