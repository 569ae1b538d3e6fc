"""Published checkpoints in models: structure, preprocessing, classes, channels, cache."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import synthetic
from formula import fill
from small_networks import answers
from test_files import net_parameter_class

import se_keras
from se_keras.errors import WeightsMismatchError
from se_keras.preprocessing import preprocessing_of
from se_keras.weights import published
from se_keras.weights.class_order import sorted_from_devkit
from se_keras.weights.convert import adapt_channels
from se_keras.weights.home import cache_folder
from se_keras.weights.readers import SafetensorsFile

SMALL = (64, 64, 3)


def values(model, layer):
    return [keras.ops.convert_to_numpy(variable) for variable in model.get_layer(layer).weights]


def photos(channels=3):
    return (np.arange(2 * 64 * 64 * channels) * 7919 % 256).reshape(2, 64, 64, channels).astype("float32")


def test_tag_and_dotted_name_are_the_same(hub_record):
    first = se_keras.create_model("se_resnet18.test_in1k", input_shape=SMALL)
    second = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    np.testing.assert_array_equal(answers(first, photos()), answers(second, photos()))
    assert "se_resnet18.test_in1k" in se_keras.list_weights("se_resnet18")


def test_record_decides_the_preprocessing(hub_record):
    model = se_keras.SEResNet18(weights="test_in1k")
    assert preprocessing_of(model).interpolation == "bicubic"
    assert model.input_shape == (None, 224, 224, 3)


def test_converted_copy_spares_the_download(hub, hub_record):
    first = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    hub.files.clear()
    second = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    np.testing.assert_array_equal(answers(first, photos()), answers(second, photos()))


def converted_copies():
    return sorted((cache_folder() / "converted").glob("se_resnet18.test_in1k.*.safetensors"))


def test_a_source_that_changes_is_converted_anew(hub_record, monkeypatch):
    se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    (source,) = hub_record.sources
    changed = dataclasses.replace(hub_record, sources=(dataclasses.replace(source, revision="v2"),))
    monkeypatch.setitem(published.RECORDS, hub_record.identifier, changed)
    se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    assert len(converted_copies()) == 2


def test_converted_copy_states_the_records_preprocessing(hub_record):
    se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL, classes=5)
    copy = SafetensorsFile(converted_copies()[0])
    assert copy.stated.preprocessing == hub_record.preprocessing


def test_damaged_converted_copy_is_made_anew(hub_record):
    first = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    (converted,) = converted_copies()
    converted.write_bytes(converted.read_bytes()[:1000])
    second = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    np.testing.assert_array_equal(answers(first, photos()), answers(second, photos()))


@pytest.mark.parametrize("warm", [False, True])
def test_other_classes_keep_everything_but_the_classifier(warm, hub_record):
    full = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL) if warm else None
    model = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL, classes=5)
    full = full or se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    differing = [
        variable.path
        for variable in model.variables
        if "seed" not in variable.path
        and not np.array_equal(variable, next(other for other in full.variables if other.path == variable.path))
    ]
    assert differing == ["logits/kernel", "logits/bias"]


def test_without_top_the_features_are_the_same(hub_record):
    full = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    body = se_keras.SEResNet18(include_top=False, pooling="avg", weights="test_in1k", input_shape=SMALL)
    pooled = keras.Model(full.input, full.get_layer("pooled").output)
    np.testing.assert_array_equal(answers(body, photos()), answers(pooled, photos()))


def test_layers_of_the_classifier_are_left_out_without_top(tmp_path):
    """MobileNetV3 and LCNet have a convolution between the pooling and the logits."""
    path = tmp_path / "lcnet.safetensors"
    safetensors.numpy.save_file(synthetic("lcnet_050", "timm_mobile"), path)
    full = se_keras.LCNet050(weights=path, input_shape=SMALL)
    own = se_keras.save_safetensors(full, tmp_path / "own.safetensors")
    pooled = keras.Model(full.input, full.get_layer("head_conv").input)
    for file in (path, own):
        body = se_keras.LCNet050(include_top=False, pooling="avg", weights=file, input_shape=SMALL)
        np.testing.assert_allclose(answers(body, photos()), answers(pooled, photos()).reshape(2, -1), rtol=1e-5)


@pytest.mark.parametrize(
    "channels", [1, pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(7, marks=pytest.mark.slow)]
)
def test_other_channels_adapt_the_stem_only(channels, hub_record):
    full = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    model = se_keras.SEResNet18(weights="test_in1k", input_shape=(64, 64, channels))
    kernel = values(model, "stem_conv")[0]
    assert kernel.shape == (7, 7, channels, 64)
    np.testing.assert_allclose(kernel, adapt_channels(values(full, "stem_conv")[0], channels))
    for layer in ("stem_bn", "stage5_block2_se", "logits"):
        for ours, theirs in zip(values(model, layer), values(full, layer), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(preprocessing_of(model).mean) == channels
    assert answers(model, photos(channels)).shape == (2, 1000)


def test_grey_images_answer_as_their_rgb_copies(hub_record):
    options = {"weights": "test_in1k", "include_preprocessing": False}
    full = se_keras.SEResNet18(input_shape=SMALL, **options)
    gray = se_keras.SEResNet18(input_shape=(64, 64, 1), **options)
    images = photos(1) / 255
    copies = np.repeat(images, 3, axis=-1)
    np.testing.assert_allclose(answers(gray, images), answers(full, copies), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 3, 6, 9])
def test_channel_sums_stay(channels):
    kernel = fill("kernel", (7, 7, 3, 8))
    adapted = adapt_channels(kernel, channels)
    np.testing.assert_allclose(adapted.sum(2), kernel.sum(2), rtol=1e-4, atol=1e-5)


def test_alias_without_published_weights_is_an_error():
    with pytest.raises(ValueError, match=r"No weights have been published for 'se_vgg16'.*weights=None"):
        se_keras.SEVGG16(weights="imagenet")


def test_unknown_tag_gives_the_closest():
    with pytest.raises(ValueError, match=r"Unknown weights of 'se_resnet50' 'ra2_in2k'\. Did you mean 'ra2_in1k'"):
        se_keras.SEResNet50(weights="ra2_in2k")


def test_tag_of_another_model_names_it():
    with pytest.raises(ValueError, match=r"'se_resnet50' has no checkpoint 'racm_in1k', unlike se_resnext50;"):
        se_keras.SEResNet50(weights="racm_in1k")


def test_missing_file_is_called_a_file():
    with pytest.raises(ValueError, match=r"There is no weights file at 'gone\.safetensors'"):
        se_keras.SEResNet50(weights="gone.safetensors")


def test_checkpoint_of_another_network_is_guessed(tmp_path, legacy18):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(legacy18, path)
    with pytest.raises(WeightsMismatchError) as error_info:
        se_keras.SEResNet34(weights=path, input_shape=SMALL)
    message = str(error_info.value)
    assert "  - " in message
    assert "Hint: its 11,778,592 parameters are those of 'se_resnet18'" in message


@pytest.mark.slow
def test_wrong_lineage_cannot_load(tmp_path):
    """Modern names in the legacy structure: every shape fits, so the names have to tell."""
    tensors = synthetic("se_resnet50", "timm", "timm")
    path = tmp_path / "modern.safetensors"
    safetensors.numpy.save_file(tensors, path)
    model = se_keras.SEResNet50(weights=path, input_shape=SMALL)
    assert model.get_layer("stage3_block1_conv2").strides == (2, 2)
    assert model.get_layer("stage3_block1_conv1").strides == (1, 1)


def test_se_other_than_the_checkpoints_is_refused(hub_record):
    with pytest.raises(ValueError, match=r"'test_in1k' has SE blocks; received se=None .* pass weights=None\."):
        se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL, se=None)


@pytest.mark.parametrize("se", [se_keras.SEConfig(gate_activation="hard_sigmoid"), se_keras.SEConfig(position="post")])
def test_se_that_would_fit_by_shape_alone_is_refused_with_and_without_a_copy(se, hub_record):
    for _ in range(2):
        with pytest.raises(ValueError, match=r"are the network's own with reduction 16; received se=SEConfig\("):
            se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL, se=se)
        se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)


def test_features_alone_leave_a_whole_copy(hub, hub_record):
    se_keras.SEResNet18(weights="test_in1k", input_shape=(64, 64, 1), include_top=False)
    hub.files.clear()
    copy = SafetensorsFile(converted_copies()[0])
    full = se_keras.SEResNet18(weights="test_in1k", input_shape=SMALL)
    for name in ("stem_conv/kernel", "logits/kernel", "logits/bias"):
        layer, variable = name.split("/")
        np.testing.assert_array_equal(copy[name], getattr(full.get_layer(layer), variable))


def test_class_order_is_the_devkits():
    order = sorted_from_devkit()
    assert sorted(order) == list(range(1000))
    inverse = np.argsort(order)
    assert inverse[:8].tolist() == [278, 212, 250, 193, 217, 147, 387, 285]
    assert inverse[[489, 360, 170, 821]].tolist() == [65, 970, 230, 809]  # the first validation images


@pytest.mark.slow
def test_authors_file_answers_in_sorted_order_from_rgb(tmp_path):
    """A .caffemodel as the authors wrote it: BGR, devkit classes. The stem and the classifier tell."""
    tensors = synthetic("se_resnet50", "caffe_resnet")
    network = net_parameter_class()(name="SE-ResNet-50")
    layers: dict = {}
    for name in sorted(tensors):
        layer, number = name[:-1].rsplit("[", 1)
        layers.setdefault(layer, {})[int(number)] = tensors[name]
    for layer, blobs in layers.items():
        added = network.layer.add(name=layer, type="x")
        for number in sorted(blobs):
            blob = added.blobs.add(data=blobs[number].ravel().tolist())
            blob.shape.dim.extend(blobs[number].shape)
    path = tmp_path / "SE-ResNet-50.caffemodel"
    path.write_bytes(network.SerializeToString())
    model = se_keras.SEResNet50(weights=path, input_shape=SMALL)
    stem = values(model, "stem_conv")[0]
    np.testing.assert_array_equal(stem[:, :, 0], tensors["conv1/7x7_s2[0]"].transpose(2, 3, 1, 0)[:, :, 2])
    bias = values(model, "logits")[1]
    np.testing.assert_array_equal(bias, tensors["classifier[1]"][sorted_from_devkit()])
    layer = model.get_layer("preprocessing")
    pixels = np.zeros((1, 1, 1, 3), "uint8") + np.array([123, 117, 104], "uint8")
    np.testing.assert_allclose(layer(pixels), 0, atol=1e-4)
    np.testing.assert_allclose(layer(pixels + 1), 1, atol=1e-4)
