"""What a model's output is, and that every way of writing it down means the same to every consumer."""

from __future__ import annotations

import io
import json

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import se_keras
from se_keras import export
from se_keras.class_names import decode_predictions
from se_keras.export.metadata import read_metadata
from se_keras.export.onnx_runtime import OnnxRunner
from se_keras.export.runtime import KerasRunner, SavedModelRunner
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.inference import classify
from se_keras.prediction import predict_folder
from se_keras.scores import SIGNATURES, Scores, kind_named
from se_keras.surgery.outputs import last_softmax, scores_of


def nested(x):
    inner = keras.Input(x.shape[1:])
    return keras.Model(inner, layers.Softmax()(layers.Dense(3)(inner)))(x)


def ensemble(x):
    return layers.Average()([layers.Dense(3, "softmax")(x), keras.ops.softmax(layers.Dense(3)(x))])


# How the end of a model is written: its kind, and how many classes it has.
ENDS = {
    "dense": (lambda x: layers.Dense(3, "softmax")(x), "probabilities", 3),
    "layer": (lambda x: layers.Softmax()(layers.Dense(3)(x)), "probabilities", 3),
    "layer_as_activation": (lambda x: layers.Dense(3, activation=layers.Softmax())(x), "probabilities", 3),
    "activation": (lambda x: layers.Activation("softmax")(layers.Dense(3)(x)), "probabilities", 3),
    "function": (lambda x: keras.ops.softmax(layers.Dense(3)(x)), "probabilities", 3),
    "nested": (nested, "probabilities", 3),
    "sequential": (lambda x: keras.Sequential([layers.Dense(3), layers.Softmax()])(x), "probabilities", 3),
    "in_float32": (
        lambda x: layers.Activation("linear", dtype="float32")(layers.Dense(3, "softmax")(x)),
        "probabilities",
        3,
    ),
    "convolution": (
        lambda x: layers.Reshape((3,))(layers.Conv2D(3, 1, activation="softmax")(layers.Reshape((1, 1, -1))(x))),
        "probabilities",
        3,
    ),
    "ensemble": (ensemble, "probabilities", 3),
    "logits": (lambda x: layers.Dense(3)(x), "logits", 3),
    "log_softmax": (lambda x: keras.ops.log_softmax(layers.Dense(3)(x)), "logits", 3),
    "one_sigmoid": (lambda x: layers.Dense(1, "sigmoid")(x), "probability", 2),
    "one_sigmoid_function": (lambda x: keras.ops.sigmoid(layers.Dense(1)(x)), "probability", 2),
    "one_logit": (lambda x: layers.Dense(1)(x), "logit", 2),
    "three_sigmoids": (lambda x: layers.Dense(3, "sigmoid")(x), "independent_probabilities", 3),
}
OTHERS = {
    "tanh": lambda x: layers.Dense(3, "tanh")(x),
    "map": lambda x: layers.Reshape((2, 2))(layers.Dense(4, "softmax")(x)),
    "two_softmaxes": lambda x: layers.Flatten()(layers.Softmax()(layers.Reshape((2, 3))(layers.Dense(6)(x)))),
    "over_the_batch": lambda x: layers.Softmax(axis=0)(layers.Dense(3)(x)),
    "mixed": lambda x: layers.Average()([layers.Dense(3, "softmax")(x), layers.Dense(3)(x)]),
    "pooled": lambda x: x,
}
CONSUMED = ("layer", "logits", "one_sigmoid", "one_logit", "three_sigmoids")  # one of each kind
NAMES = ("ant", "bee", " cat")
record = se_keras.Preprocessing(size=8, crop=1.0)


def built(end):
    images = keras.Input((8, 8, 3), name="images")
    x = se_keras.layers.ImagePreprocessing(mean=record.mean, std=record.std, size=8, crop=1.0)(images)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(images, end(x))


@pytest.fixture(scope="module")
def models():
    keras.utils.set_random_seed(1)
    return {name: built(end) for name, (end, _, _) in ENDS.items()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three images of the input's size, in a folder."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder, pixels


def expected_of(model, kind, pixels):
    """The probability of each class, computed by hand."""
    outputs = model.predict(pixels.astype("float32"), verbose=0)
    if kind == "logits":
        powers = np.exp(outputs - outputs.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)
    if kind in ("probability", "logit"):
        second = 1 / (1 + np.exp(-outputs)) if kind == "logit" else outputs
        return np.concatenate([1 - second, second], 1)
    return outputs


@pytest.mark.parametrize("name", ENDS)
def test_kind_is_told_from_the_graph(models, photos, name):
    _, kind, classes = ENDS[name]
    scores = scores_of(models[name])
    assert (scores.kind, scores.classes) == (kind, classes)
    outputs = models[name].predict(photos[1].astype("float32"), verbose=0)
    found = keras.ops.convert_to_numpy(scores.probabilities(outputs))
    np.testing.assert_allclose(found, expected_of(models[name], kind, photos[1]), atol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_what_no_rule_is_for_is_called_output(name):
    assert scores_of(built(OTHERS[name])).kind == "output"


def test_softmax_over_one_output_is_refused():
    with pytest.raises(ValueError, match=r"1\.0 for every image.*classifier_activation='sigmoid'"):
        scores_of(built(lambda x: layers.Dense(1, "softmax")(x)))
    for activation in ("softmax", keras.activations.softmax, layers.Softmax()):
        with pytest.raises(ValueError, match=r"returns 1\.0 for every image; received classes=1 with"):
            se_keras.SEResNet20(classes=1, classifier_activation=activation)
    assert scores_of(se_keras.SEResNet20(classes=1, classifier_activation="sigmoid")).kind == "probability"


def test_the_softmax_at_the_end_is_found(models):
    for name in ("dense", "layer", "activation", "function"):
        _, before = last_softmax(models[name])
        assert keras.backend.is_keras_tensor(before)
    assert last_softmax(models["nested"]) is None
    assert last_softmax(models["logits"]) is None


def test_name_in_a_saved_model_tells_the_kind():
    assert kind_named("probabilities", (None, 1)) == "probability"
    assert kind_named("logits", (None, 1)) == "logit"
    assert kind_named("probabilities", (None, 3)) == "probabilities"
    assert kind_named("output_0", (None, 3)) == kind_named("logits", (None, 2, 2)) == "output"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("layer", "one_sigmoid") else pytest.mark.slow) for name in CONSUMED],
)
def test_saved_model_serves_every_class(models, photos, tmp_path, name):
    tf = pytest.importorskip("tensorflow")
    _, kind, classes = ENDS[name]
    names = NAMES[:classes]
    path = export.saved_model(models[name], tmp_path / "saved", class_names=names)
    loaded = tf.saved_model.load(str(path))
    expected = expected_of(models[name], kind, photos[1])
    contents = [png(image) for image in photos[1]]
    answer = loaded.signatures["serve_bytes"](image_bytes=tf.constant(contents))
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    assert [row[0].decode() for row in answer["labels"].numpy()] == [names[i] for i in expected.argmax(1)]
    np.testing.assert_allclose(answer["scores"][:, 0], expected.max(1), atol=1e-5)
    assert list(loaded.signatures["serving_default"].structured_outputs) == [SIGNATURES[kind]]
    runner = SavedModelRunner(path)
    assert Scores(runner.kind, runner(photos[1]).shape[1]).classes == classes
    assert (path / "assets/labels.txt").read_text("utf-8") == "".join(["ant\nbee\n", '" cat"\n'][: classes - 1])


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize("name", CONSUMED)
def test_tflite_file_says_what_its_output_is(models, photos, tmp_path, name):
    _, kind, classes = ENDS[name]
    path = export.tflite(models[name], tmp_path / "m.tflite", class_names=NAMES[:classes])
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["output"] == kind
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["class_names"] == list(NAMES[:classes])
    assert read_metadata(path.read_bytes()).class_names == NAMES[:classes]
    assert TFLiteRunner(path).kind == kind
    report = export.verify(path, models[name], data=photos[1], labels=[0, 1, 1], repeats=0, gpu_images=0)
    assert report.passed, report.failures
    (real,) = (entry for entry in report.agreements if entry.images == "real")
    is_sigmoid = kind in ("probability", "independent_probabilities")
    assert real.quantity == ("probabilities" if is_sigmoid else "logits")
    best = expected_of(models[name], kind, photos[1]).argmax(1)
    assert real.accuracy == pytest.approx(np.mean(best == [0, 1, 1]))


@pytest.mark.parametrize("name", CONSUMED)
def test_photos_are_named_one_by_one_and_by_the_folder(models, photos, tmp_path, name):
    _, kind, classes = ENDS[name]
    folder, pixels = photos
    names = NAMES[:classes]
    expected = decode_predictions(expected_of(models[name], kind, pixels), class_names=names)
    found = classify(models[name], [folder / f"{number}.png" for number in range(3)], class_names=names)
    assert [[row[:2] for row in rows] for rows in found] == [[row[:2] for row in rows] for rows in expected]
    np.testing.assert_allclose(
        [[p for *_, p in rows] for rows in found], [[p for *_, p in r] for r in expected], atol=1e-5
    )
    done = predict_folder(models[name], folder, tmp_path / "all.csv", class_names=names, top=1)
    assert (done.classified, done.broken) == (3, 0)
    lines = (tmp_path / "all.csv").read_text("utf-8").splitlines()[1:]
    assert [line.split(",")[2] for line in lines] == [rows[0][1] for rows in expected]


@pytest.mark.parametrize("name", ["one_sigmoid", "one_logit"])
def test_one_name_for_one_output_is_refused_everywhere(models, photos, tmp_path, name):
    folder, pixels = photos
    model, rule = models[name], "One output column is the probability of the second of two classes"
    for consumer in (
        lambda: export.saved_model(model, tmp_path / "saved", class_names=["dog"]),
        lambda: export.tflite(model, tmp_path / "m.tflite", class_names=["dog"]),
        lambda: export.onnx(model, tmp_path / "m.onnx", class_names=["dog"]),
        lambda: classify(model, pixels, class_names=["dog"]),
        lambda: predict_folder(model, folder, tmp_path / "a.csv", class_names=["dog"]),
    ):
        with pytest.raises(ValueError, match=rule):
            consumer()
    assert not list(tmp_path.iterdir())


def test_onnx_file_says_what_its_output_is(models, tmp_path):
    pytest.importorskip("tf2onnx")
    path = export.onnx(models["one_sigmoid"], tmp_path / "m.onnx", class_names=["cat", "dog"])
    runner = OnnxRunner(path)
    assert runner.kind == "probability"
    assert json.loads(runner.session.get_modelmeta().custom_metadata_map["class_names"]) == ["cat", "dog"]


def test_answers_that_are_no_probabilities_are_not_named(models, photos, tmp_path):
    model = built(OTHERS["tanh"])
    model.layers[-1].bias.assign([-5, 0, 0])
    with pytest.raises(ValueError, match="Probabilities must be between 0 and 1; row 0"):
        classify(model, photos[1], class_names=NAMES)
    broken = keras.models.clone_model(models["dense"])
    broken.layers[-1].bias.assign([np.nan, 0, 0])
    with pytest.raises(ValueError, match=r"row 0 has nan \(and 2 more rows\)"):
        classify(broken, photos[1], class_names=NAMES)
    done = predict_folder(broken, photos[0], tmp_path / "all.csv", class_names=NAMES)
    assert (done.classified, done.broken) == (0, 3)


def test_subclassed_model_is_taken_as_it_is():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    assert scores_of(Own()).kind == "output"
    assert KerasRunner(built(ENDS["dense"][0])).kind == "probabilities"
