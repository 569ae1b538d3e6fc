"""Backbones and classifiers for KerasHub: what they share with our networks, saving, presets, dtypes, preprocessing."""

from __future__ import annotations

import json
import pathlib

import keras
import numpy as np
import pytest
from cases import ALL
from small_networks import answers

import se_keras
from se_keras.images.reading import load_image
from se_keras.models.registry import NETWORKS

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub")
hub = se_keras.hub
# KerasHub compiles its tasks by itself, which Keras cannot repeat.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*compile.* was not called as part of model loading:UserWarning"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning"),
]

PHOTO = pathlib.Path(__file__).parents[1] / "goldens" / "photo.jpg"
IMAGES = (np.arange(2 * 32 * 32 * 3) * 7919 % 256).reshape(2, 32, 32, 3).astype("float32")


@pytest.fixture(scope="module")
def classifier():
    return hub.classifier("se_resnet20", weights="cifar10")


@pytest.fixture(scope="module")
def preset(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("preset")
    classifier.save_to_preset(str(folder))
    return str(folder)


@pytest.mark.parametrize(
    ("network", "levels"),
    [("lcnet_050", {"P2": 4, "P3": 8, "P4": 16, "P5": 32}), ("se_resnet20", {"P0": 1, "P1": 2, "P2": 4})],
)
def test_levels_of_the_pyramid_are_powers_of_two(network, levels):
    backbone = hub.backbone(network, image_shape=(64, 96, 3))
    sizes = {name: tensor.shape[1:3] for name, tensor in backbone.pyramid_outputs.items()}
    assert sizes == {name: (64 // stride, 96 // stride) for name, stride in levels.items()}


@pytest.mark.skipif(not ALL, reason="make test-all does this")
@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_a_pyramid(network, built):
    stages = [name for name in built(network).layer_names if name.startswith("stage") and "_" not in name]
    assert stages in ([f"stage{n}" for n in range(2, 6)], [f"stage{n}" for n in range(2, 5)])
    assert (len(stages) == 3) == (NETWORKS[network].preprocessing.size == 32)


def test_weights_have_the_names_and_values_of_create_model(classifier):
    model = se_keras.create_model("se_resnet20", weights="cifar10")
    assert [weight.path for weight in classifier.weights] == [weight.path for weight in model.weights]
    np.testing.assert_array_equal(answers(classifier, IMAGES), answers(model, IMAGES))
    body = hub.backbone("se_resnet20.cifar10")
    features = se_keras.feature_extractor(model, ["stage4"])
    np.testing.assert_array_equal(answers(body, IMAGES), answers(features, IMAGES)["stage4"])


def test_classifier_that_was_trained_becomes_a_backbone(classifier, tmp_path):
    se_keras.save_safetensors(classifier, tmp_path / "trained.safetensors")
    se = se_keras.SEConfig(reduction=4)  # of the bundled network
    backbone = hub.backbone("se_resnet20", weights=tmp_path / "trained.safetensors", se=se)
    np.testing.assert_array_equal(answers(backbone, IMAGES), answers(classifier.backbone, IMAGES))


def test_predict_takes_photos_and_agrees_with_the_model(classifier):
    photo = np.asarray(load_image(PHOTO))
    assert photo.shape[0] != photo.shape[1]
    prepared = se_keras.preprocess(photo, classifier)
    assert np.abs(np.asarray(classifier.preprocessor(photo[None])) - prepared).max() <= 1
    expected = answers(classifier, prepared)
    np.testing.assert_allclose(classifier.predict(photo[None], verbose=0), expected, atol=0.01)
    names = se_keras.decode_predictions(expected, class_names=classifier, top=1)
    assert names[0][0][1] in se_keras.get_class_names(classifier)


@pytest.mark.parametrize("crop", [0.875, 1.0])
@pytest.mark.parametrize("size", [(48, 48), (32, 64)])
@pytest.mark.parametrize("cut", [(375, 500), (300, 200), (100, 500), (20, 30)])
def test_converter_crops_as_preprocess_does(crop, size, cut):
    photo = np.asarray(load_image(PHOTO))[: cut[0], : cut[1]]
    expected = se_keras.preprocess(photo, se_keras.Preprocessing(size=size, crop=crop))[0]
    converter = hub.SEImageConverter(size, crop=crop)
    assert np.abs(np.asarray(converter(photo)) - expected).max() <= 1
    again = hub.SEImageConverter.from_config(converter.get_config())
    np.testing.assert_array_equal(again(photo), converter(photo))


def test_converter_in_a_pipeline_of_photos_of_any_size():
    import tensorflow as tf

    photo = np.asarray(load_image(PHOTO))
    converter = hub.SEImageConverter((48, 48))
    shape = tf.TensorSpec((None, None, 3), "uint8")
    photos = tf.data.Dataset.from_generator(lambda: iter([photo]), output_signature=shape)
    assert np.abs(next(iter(photos.map(converter))).numpy() - np.asarray(converter(photo))).max() < 0.51


def test_converter_normalizes_for_a_backbone_without_preprocessing():
    inside, outside = (hub.backbone("se_resnet20", include_preprocessing=include) for include in (True, False))
    outside.set_weights(inside.get_weights())
    converter = hub.image_converter(outside)
    np.testing.assert_allclose(answers(outside, converter(IMAGES)), answers(inside, IMAGES), rtol=1e-4, atol=1e-4)


def test_converter_refuses_boxes_and_impossible_crops():
    with pytest.raises(ValueError, match="without bounding boxes"):
        hub.SEImageConverter((32, 32))({"images": IMAGES, "bounding_boxes": {}})
    with pytest.raises(ValueError, match="crop=0"):
        hub.SEImageConverter((32, 32), crop=0)


def test_saved_classifier_is_the_same(classifier, tmp_path):
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, hub.SEImageClassifier)
    assert isinstance(loaded.preprocessor, hub.SEImageClassifierPreprocessor)
    np.testing.assert_array_equal(answers(loaded, IMAGES), answers(classifier, IMAGES))
    assert se_keras.get_class_names(loaded) == se_keras.get_class_names(classifier) != ()


def test_preset_of_a_classifier_is_the_same(classifier, preset):
    loaded = keras_hub.models.ImageClassifier.from_preset(preset)
    np.testing.assert_array_equal(answers(loaded, IMAGES), answers(classifier, IMAGES))
    assert se_keras.get_class_names(loaded) == se_keras.get_class_names(classifier)
    assert keras_hub.layers.ImageConverter.from_preset(preset).image_size == (32, 32)
    other = keras_hub.models.ImageClassifier.from_preset(preset, num_classes=3, activation=None)
    assert other.output_shape == (None, 3)
    assert se_keras.get_class_names(other) == ()
    np.testing.assert_array_equal(answers(other.backbone, IMAGES), answers(classifier.backbone, IMAGES))


def test_preset_of_a_backbone_takes_another_size_and_dtype(classifier, preset):
    backbone = keras_hub.models.Backbone.from_preset(preset, image_shape=(64, 64, 3), dtype="bfloat16")
    assert isinstance(backbone, hub.SEBackbone)
    assert backbone.input_shape == (None, 64, 64, 3)
    assert list(backbone.pyramid_outputs) == ["P0", "P1", "P2"]
    assert {variable.dtype for variable in backbone.trainable_variables} == {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"
    assert np.isfinite(np.asarray(answers(backbone, np.tile(IMAGES, (1, 2, 2, 1)))).astype("float32")).all()


def test_config_states_every_option():
    se = se_keras.SEConfig(reduction=4, stages=(3, 4))
    given = hub.SEBackbone(
        "se_resnet50",
        se=se,
        lineage="timm",
        image_shape=(64, 64, 1),
        include_preprocessing=False,
        dtype="mixed_float16",
    )
    config = json.loads(json.dumps(given.get_config()))
    again = hub.SEBackbone.from_config(config)
    assert [w.path for w in again.weights] == [w.path for w in given.weights]
    assert again.dtype_policy.name == "mixed_float16"
    assert json.loads(json.dumps(again.get_config())) == config


def test_plain_classifier_of_keras_hub_takes_the_backbone():
    classifier = keras_hub.models.ImageClassifier(hub.backbone("se_resnet20"), num_classes=3)
    assert classifier.output_shape == (None, 3)


@pytest.mark.parametrize("name", ["se_resnet5", "resnet50_imagenet"])
def test_unknown_network_is_an_error(name):
    with pytest.raises(ValueError, match="Unknown model"):
        hub.backbone(name)
    with pytest.raises(ValueError, match="Unknown model"):
        hub.SEBackbone(name)


LOADS = """
    import sys
    import se_keras
    assert "keras_hub" not in sys.modules
    import keras_hub
    print(type(keras_hub.models.Backbone.from_preset({preset!r})).__name__)
"""


@pytest.mark.slow
def test_preset_loads_after_importing_the_packages(preset, run_python):
    assert run_python(LOADS.format(preset=preset)).split()[-1] == "SEBackbone"
    reversed_order = "import keras_hub, se_keras; print(keras_hub.models.Backbone.from_preset({preset!r}).name)"
    assert run_python(reversed_order.format(preset=preset)).split()[-1] == "se_resnet20_backbone"


@pytest.mark.slow
def test_missing_package_is_named(run_python):
    code = """
        import sys
        sys.modules["keras_hub"] = None
        import se_keras
        try:
            se_keras.hub.backbone
        except ImportError as error:
            print(error)
    """
    assert "se_keras[keras-hub]" in run_python(code)


WORKS = """
    import keras, keras_hub, numpy as np
    import se_keras

    classifier = se_keras.hub.classifier("se_resnet20", weights="cifar10", dtype="bfloat16")
    photos = np.random.default_rng(0).integers(0, 256, (2, 48, 40, 3)).astype("uint8")
    classifier.fit(photos, np.array([0, 1]), verbose=0)
    classifier.save_to_preset({preset!r})
    loaded = keras_hub.models.ImageClassifier.from_preset({preset!r}, dtype="bfloat16")
    difference = np.abs(loaded.predict(photos, verbose=0) - classifier.predict(photos, verbose=0)).max()
    print("difference", float(difference), "on", keras.backend.backend())
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.torch)])
def test_classifier_on_other_backends(backend, tmp_path, run_python):
    pytest.importorskip(backend)
    printed = run_python(WORKS.format(preset=str(tmp_path / "preset")), KERAS_BACKEND=backend)
    assert f"difference 0.0 on {backend}" in printed
