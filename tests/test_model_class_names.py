"""The class names of a model: where they go with it, and who uses them."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from small_networks import answers

import se_keras
import se_keras_cli
from se_keras import export, surgery
from se_keras.class_names import class_names_for
from se_keras.class_names_file import write_class_names
from se_keras.export.images import real_images
from se_keras.export.metadata import read_metadata
from se_keras.inference import classify
from se_keras.prediction import predict_folder
from se_keras.preprocessing import preprocessing_layer
from se_keras.weights.keras_files import save_keras_file

NAMES = ("rose", "daisy", "tulip")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")


def network(**options):
    return se_keras.SEResNet20(weights=None, **{"classes": 3, **options})


@pytest.fixture
def model():
    model = network()
    se_keras.set_class_names(model, NAMES)
    return model


def test_names_are_saved_with_the_model(model, tmp_path):
    model.save(tmp_path / "plants.keras")
    assert se_keras.get_class_names(keras.models.load_model(tmp_path / "plants.keras")) == NAMES
    assert "class_names" not in json.dumps(network().get_config())


@pytest.mark.parametrize("kind", [".keras", ".safetensors"])
def test_names_come_with_the_classifier_of_a_file(kind, model, tmp_path):
    file = tmp_path / f"plants{kind}"
    (save_keras_file if kind == ".keras" else se_keras.save_safetensors)(model, file)
    loaded = se_keras.SEResNet20(weights=file)
    assert (loaded.output_shape, se_keras.get_class_names(loaded)) == ((None, 3), NAMES)
    np.testing.assert_array_equal(answers(loaded, IMAGES), answers(model, IMAGES))
    if kind == ".safetensors":
        assert se_keras.get_class_names(se_keras.SEResNet20(weights=file, classes=5)) == ()
        assert se_keras.get_class_names(se_keras.SEResNet20(weights=file, include_top=False, pooling="avg")) == ()


def test_two_names_of_one_output_come_with_a_file(tmp_path):
    model = network(classes=1, classifier_activation="sigmoid")
    se_keras.set_class_names(model, ["cat", "dog"])
    file = se_keras.save_safetensors(model, tmp_path / "pets.safetensors")
    loaded = se_keras.SEResNet20(weights=file, classifier_activation="sigmoid")
    assert (loaded.output_shape, se_keras.get_class_names(loaded)) == ((None, 1), ("cat", "dog"))


def test_published_names_come_with_the_weights():
    names = se_keras.get_class_names(se_keras.SEResNet20(weights="cifar10"))
    assert names[:2] == ("airplane", "automobile")


def test_copies_and_rewritten_models_keep_the_names(model):
    for other in (keras.models.clone_model(model), surgery.deploy(model)):
        assert se_keras.get_class_names(other) == NAMES


def test_another_classifier_has_no_names(model):
    features = model.get_layer("pooled").output
    assert se_keras.get_class_names(keras.Model(model.input, keras.layers.Dense(3)(features))) == ()
    assert se_keras.get_class_names(keras.Model(model.input, features)) == ()


def test_models_around_a_network_are_named(model):
    whole = keras.Sequential([keras.Input((32, 32, 3)), model, keras.layers.Dense(2)])
    assert se_keras.get_class_names(whole) == ()
    layer, models = preprocessing_layer(whole)
    assert (layer.name, models) == ("preprocessing", (whole, model))
    se_keras.set_class_names(whole, ["a", "b"])
    assert se_keras.get_class_names(whole) == ("a", "b")


@pytest.mark.parametrize(
    ("options", "names", "message"),
    [
        ({}, None, "must be a sequence of strings; received `class_names` as None"),
        ({}, ["a", "b"], "one name for each of the 3 classes; received 2"),
        ({}, ["a", "b", "b"], "Each class must have its own name"),
        ({"include_preprocessing": False}, NAMES, "next to its preprocessing, and 'se_resnet20' was built without"),
        ({"include_top": False}, NAMES, r"need one output of shape \(batch, classes\); 'se_resnet20' has another"),
    ],
)
def test_names_that_do_not_fit_are_refused(options, names, message):
    with pytest.raises(ValueError, match=message):
        se_keras.set_class_names(network(**options), names)


def test_predictions_are_named(model, tmp_path):
    probabilities = answers(model, IMAGES)
    first = NAMES[int(probabilities[0].argmax())]
    assert se_keras.decode_predictions(probabilities, class_names=model)[0][0][1] == first
    assert classify(model, IMAGES[:1], verbose=0)[0][0][1] == first
    assert classify(model, IMAGES[:1], class_names=["a", "b", "c"], verbose=0)[0][0][1] in "abc"
    keras.utils.save_img(tmp_path / "photo.png", IMAGES[0])
    for given in (str(tmp_path / "photo.png"), tmp_path.glob("*.png")):
        assert [row[0][1] for row in classify(model, given, verbose=0)] == [first]
    predict_folder(model, tmp_path, tmp_path / "out.csv", top=1, verbose=0)
    assert first in (tmp_path / "out.csv").read_text()
    assert class_names_for(network(), None, 3) is None


@pytest.mark.slow
def test_exports_have_the_names(model, tmp_path):
    export.tflite(model, tmp_path / "m.tflite", verbose=0)
    assert read_metadata((tmp_path / "m.tflite").read_bytes()).class_names == NAMES
    export.saved_model(model, tmp_path / "saved", verbose=0)
    assert (tmp_path / "saved/assets/labels.txt").read_text().split() == [*NAMES]


MOVED = ("daisy", "rose", "tulip")


def test_own_names_in_another_order_are_refused(model, tmp_path, monkeypatch, capsys):
    message = r"the order of the model's outputs; .* name class 0 'daisy', and the model names it 'rose'"
    for use in (
        lambda: export.tflite(model, tmp_path / "model.tflite", class_names=MOVED),
        lambda: export.saved_model(model, tmp_path / "saved", class_names=MOVED),
        lambda: classify(model, IMAGES, class_names=MOVED),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    model.save(tmp_path / "plants.keras")
    write_class_names(tmp_path / "names.txt", MOVED)
    arguments = ["export", "plants.keras", "--format", "tflite", "--class-names", "names.txt", "--output", "m.tflite"]
    monkeypatch.chdir(tmp_path)
    assert se_keras_cli.main(arguments) == 1
    assert "name class 0 'daisy', and the model names it 'rose'" in " ".join(capsys.readouterr().err.split())
    others = ["a", "b", "c"]
    assert class_names_for(model, others, 3) == tuple(others)


def test_verify_fails_a_file_with_the_names_in_another_order(tmp_path):
    pixels = se_keras.layers.ImagePreprocessing(mean=[0.5], std=[0.5], size=8)
    layers = [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 3)), pixels, *layers])
    path = export.tflite(se_keras.set_class_names(model, NAMES), tmp_path / "model.tflite", verbose=0)
    se_keras.set_class_names(model, MOVED)
    report = export.verify(path, model, verbose=0, gpu_images=0, repeats=0)
    assert report.failures == ("The file names class 0 'rose', and the model names it 'daisy'.",)


@pytest.mark.slow
def test_onnx_has_the_names(model, tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    pytest.importorskip("tf2onnx", reason="needs the extra 'onnx'")
    export.onnx(model, tmp_path / "m.onnx", verbose=0)
    properties = {one.key: one.value for one in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(properties["class_names"]) == [*NAMES]


def test_folders_of_photos_are_found_by_name(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
        keras.utils.save_img(tmp_path / name / "a.png", IMAGES[0])
    options = {"record": se_keras.Preprocessing(), "most": 9}
    own = real_images(tmp_path, None, (32, 32, 3), **options)
    named = real_images(tmp_path, None, (32, 32, 3), class_names=NAMES, **options)
    assert (own.labels.tolist(), named.labels.tolist()) == ([0, 1, 2], [1, 0, 2])  # daisy, rose, tulip
