"""Accuracy in all and by class, of models and of exported files; and the pictures of it."""

import keras
import numpy as np
import pytest
from PIL import Image

from se_keras import export, set_class_names
from se_keras.layers import ImagePreprocessing
from se_keras.preprocessing import preprocessing_layer
from se_keras.training.evaluate import Evaluation, evaluate
from se_keras.training.figures import draw_confusion, draw_curves
from se_keras.training.sources import ArraySource

NAMES = ("dark", "gray", "light", "white", "red", "green", "blue")


def brightness_model(classes=7):
    """Answers "dark" below a mean of 127.5 and "gray" above, and the others in order."""
    inputs = keras.Input((8, 8, 3))
    x = ImagePreprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)(inputs)
    x = keras.layers.Dense(classes, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    kernel = np.zeros((3, classes), "float32")
    kernel[:, 0], kernel[:, 1] = -5, 5
    model.layers[-1].set_weights([kernel, -np.arange(classes, dtype="float32")])
    return model


@pytest.fixture
def images():
    shades = np.array([10, 20, 30, 240, 250, 200, 30], np.uint8)
    pixels = np.repeat(shades, 8 * 8 * 3).reshape(-1, 8, 8, 3)
    return ArraySource(pixels, np.array([0, 0, 1, 1, 1, 2, 3]), NAMES)


def test_counts_by_hand(images):
    result = evaluate(brightness_model(), images)
    assert result.images == 7
    assert result.confusion[0].tolist() == [2, 0, 0, 0, 0, 0, 0]
    assert result.confusion[1].tolist() == [1, 2, 0, 0, 0, 0, 0]
    assert result.accuracy == pytest.approx(4 / 7)
    assert result.by_class["gray"] == pytest.approx(2 / 3)
    assert np.isnan(result.by_class["blue"])
    assert result.top5 == pytest.approx(6 / 7)  # the gray one taken for dark is last there
    assert result.as_dict()["confusion"][1][0] == 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports need TensorFlow")
def test_exported_file_gives_the_same(images, tmp_path):
    export.tflite(brightness_model(), tmp_path / "model.tflite")
    np.testing.assert_array_equal(
        evaluate(tmp_path / "model.tflite", images).confusion, evaluate(brightness_model(), images).confusion
    )


FORMATS = {
    "keras": lambda model, folder: model,
    "tflite": lambda model, folder: export.tflite(model, folder / "model.tflite"),
    "onnx": lambda model, folder: export.onnx(model, folder / "model.onnx"),
    "openvino": lambda model, folder: export.openvino(model, folder / "model.xml"),
    "saved_model": lambda model, folder: export.saved_model(model, folder / "model"),
}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports need TensorFlow")
@pytest.mark.parametrize("kind", FORMATS)
def test_outputs_are_assigned_by_name(images, kind, tmp_path):
    if kind in ("onnx", "openvino"):
        pytest.importorskip(kind, reason=f"needs the extra '{kind}'")
    model = set_class_names(brightness_model(), NAMES)
    expected = evaluate(model, images)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel[:, ::-1], bias[::-1]])
    found = evaluate(FORMATS[kind](set_class_names(model, NAMES[::-1]), tmp_path), images)
    np.testing.assert_array_equal(found.confusion, expected.confusion)
    assert found.class_names == NAMES


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports need TensorFlow")
@pytest.mark.parametrize("kind", ["keras", "tflite", "onnx", "openvino"])
def test_photos_are_cropped_as_the_file_states(kind, tmp_path):
    if kind in ("onnx", "openvino"):
        pytest.importorskip(kind, reason=f"needs the extra '{kind}'")
    pixels = np.full((1, 64, 64, 3), 115, "uint8")
    pixels[:, :4], pixels[:, -4:], pixels[:, :, :4], pixels[:, :, -4:] = (
        255,
        255,
        255,
        255,
    )  # bright only with its edges
    model = brightness_model()
    preprocessing_layer(model)[0].crop = 0.5
    dark = ArraySource(pixels, np.array([0]), NAMES)
    assert evaluate(FORMATS[kind](model, tmp_path), dark).accuracy == 1
    preprocessing_layer(model)[0].crop = 0.875
    assert evaluate(model, dark).accuracy == 0


def test_some_names_in_another_order_are_refused(images):
    with pytest.raises(ValueError, match="have 6 of the model's classes in another order: dark, gray"):
        evaluate(brightness_model(), images, class_names=[*NAMES[1:], "black"])
    for names in (["black"], "dark"):
        with pytest.raises(ValueError, match=r"[Cc]lass names|`class_names`"):
            evaluate(brightness_model(), images, class_names=names)


def test_a_network_of_something_else_is_refused(images):
    waves = keras.Input((32, 1), name="waves")
    model = keras.Model(waves, keras.layers.GlobalAveragePooling1D()(waves))
    with pytest.raises(
        ValueError, match="Only networks that take images can be evaluated on images; this one takes 'waves'"
    ):
        evaluate(model, images)


def test_other_classes_are_refused(images):
    with pytest.raises(ValueError, match="has 5 classes, but the images have 7: dark, gray"):
        evaluate(brightness_model(5), images)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_output_is_two_classes(images, activation, tmp_path):
    two = ArraySource(np.stack([images[i] for i in range(5)]), images.labels[:5], NAMES[:2])
    inputs = keras.Input((8, 8, 3))
    x = ImagePreprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)(inputs)
    x = keras.layers.Dense(1, activation=activation)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    model.layers[-1].set_weights([np.full((3, 1), 5, "float32"), np.zeros(1, "float32")])
    assert evaluate(model, two).confusion.tolist() == [[2, 0], [1, 2]]
    if keras.backend.backend() == "tensorflow":
        path = export.tflite(model, tmp_path / "model.tflite")
        assert evaluate(path, two).accuracy == pytest.approx(4 / 5)
        path.with_suffix(".json").unlink()
        with pytest.raises(ValueError, match="does not say whether it is a probability or a logit"):
            evaluate(path, two)


def test_answers_that_are_not_finite_are_refused(images):
    model = brightness_model()
    model.layers[-1].bias.assign([np.nan] * 7)
    with pytest.raises(ValueError, match="outputs must be finite"):
        evaluate(model, images)


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        {"epoch": e, "accuracy": 0.1 * e, "val_accuracy": 0.09 * e, "loss": 2 / e, "val_loss": 2.1 / e} for e in (1, 2)
    ]
    draw_curves({"with SE": rows, "plain": rows[:1]}, tmp_path / "curves.png", title="two runs")
    names = ("_grey", "under $5 {a$", "two\nlines", " ", *NAMES[:3])  # mathematics that matplotlib would refuse
    draw_confusion(Evaluation(names, np.eye(7, dtype=int) * 3, None), tmp_path / "confusion.png", title="all right")
    for name in ("curves", "confusion"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 400
    with pytest.raises(ValueError, match="1 to 4 runs; received 0"):
        draw_curves({}, tmp_path / "none.png", title="nothing")
