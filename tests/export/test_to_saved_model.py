"""SavedModels, loaded by those who will use them: plain TensorFlow, TF Hub, `TFSMLayer`, TensorFlow Serving's files."""

import dataclasses
import functools
import importlib
import importlib.util
import io
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import ALL
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image, ImageOps
from small_networks import answers, images_for, shortened
from tensorflow.core.protobuf import saved_model_pb2

import se_keras
from se_keras import export
from se_keras.export.image_bytes import decoded, exif_orientation, resized_and_cropped, stretched
from se_keras.export.to_saved_model import pooled_output
from se_keras.export.to_tflite import write_archive
from se_keras.export.warm_up import WARM_UP_FILE
from se_keras.layers import SqueezeExcite
from se_keras.scores import SIGNATURES
from se_keras.surgery.outputs import scores_of
from se_keras.training.sources import load_sample

NAMES = load_sample().class_names
PHOTO = Image.open(os.path.join(os.path.dirname(__file__), "..", "goldens", "photo.jpg"))


@pytest.fixture(scope="module")
def small():
    """A network with everything that training changes: batch norm, dropout, SE; moving averages off their start."""
    keras.utils.set_random_seed(0)
    model = shortened("se_resnet20", dropout=0.3)
    model(load_sample().x_train[:64].astype("float32"), training=True)
    return model


@pytest.fixture(scope="module")
def deployed(small, tmp_path_factory):
    return export.saved_model(small, tmp_path_factory.mktemp("saved") / "deployed", class_names=NAMES)


@pytest.fixture(scope="module")
def tunable(small, tmp_path_factory):
    return export.saved_model(small, tmp_path_factory.mktemp("saved") / "tunable", class_names=NAMES, deploy=False)


@pytest.fixture(scope="module")
def saved(request, tmp_path_factory):
    """`saved(name, deploy)`: the SavedModel of the fixture of this name, written once."""
    folder = tmp_path_factory.mktemp("saved")

    @functools.cache
    def path(name, deploy):
        return export.saved_model(request.getfixturevalue(name), folder / f"{name}_{deploy}", deploy=deploy)

    return path


def user_model(**dense):
    """What a user writes: own layers, weight decay, no preprocessing record."""
    inputs = keras.Input((16, 12, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, kernel_regularizer=keras.regularizers.L2(0.1), name="first")(x)
    x = keras.layers.BatchNormalization()(x)
    x = SqueezeExcite(reduction=2, kernel_regularizer="l1")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, **dense)(x), name="user's model")


# The same answers everywhere.


@pytest.mark.parametrize("deploy", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["small", pytest.param("grouped", marks=pytest.mark.slow)])
def test_every_way_to_call_equals_keras(name, deploy, request, saved):
    model = request.getfixturevalue(name)
    images = images_for(model)
    loaded = tf.saved_model.load(str(saved(name, deploy)))
    expected = answers(model, images)
    served = loaded.signatures["serving_default"](images=tf.constant(images))
    assert set(served) == {"probabilities"}
    for answer in (served["probabilities"], loaded(images), loaded(images, training=False), loaded.serve(images)):
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_batch_of_no_files_has_no_answers(deployed):
    serve = tf.saved_model.load(str(deployed)).signatures["serve_bytes"]
    answer = serve(image_bytes=tf.constant([], tf.string))
    assert {name: tensor.shape[0] for name, tensor in answer.items()} == dict.fromkeys(answer, 0)
    assert answer["probabilities"].shape == (0, len(NAMES))


def test_batch_is_dynamic(deployed, small):
    loaded = tf.saved_model.load(str(deployed))
    for count in (1, 5):
        assert loaded(images_for(small, count)).shape == (count, 10)


@pytest.mark.slow
def test_features_are_what_the_classifier_sees(tunable, deployed, small):
    images = images_for(small)
    expected = answers(se_keras.feature_extractor(small, ["pooled"]), images)["pooled"]
    for path in (tunable, deployed):
        pooled = tf.saved_model.load(str(path)).signatures["features"](images=tf.constant(images))
        np.testing.assert_allclose(pooled["pooled"], expected, rtol=1e-4, atol=1e-5)


PLAIN_TENSORFLOW = """
    import sys
    for name in ("keras", "tf_keras", "se_keras"):
        sys.modules[name] = None  # importing it fails
    import numpy as np
    import tensorflow as tf
    for path, arrays in {cases}:
        loaded, arrays = tf.saved_model.load(path), np.load(arrays)
        files = [arrays["jpeg"].tobytes()]
        for answer, expected in (
            (loaded(arrays["images"]), "output"),
            (loaded.signatures["serving_default"](images=tf.constant(arrays["images"]))["probabilities"], "output"),
            (loaded.signatures["features"](images=tf.constant(arrays["images"]))["pooled"], "pooled"),
            (loaded.signatures["serve_bytes"](image_bytes=tf.constant(files))["probabilities"], "of_file"),
        ):
            np.testing.assert_allclose(answer, arrays[expected], rtol=1e-6, atol=1e-6, err_msg=path)
        assert loaded(arrays["images"], training=True).shape == arrays["output"].shape
        print(len(loaded.trainable_variables))
"""


@pytest.mark.slow
def test_plain_tensorflow_needs_neither_keras_nor_this_package(deployed, tunable, small, run_python, tmp_path):
    images, file = images_for(small), encoded(PHOTO, "JPEG")
    cases = [(str(path), str(tmp_path / f"{path.name}.npz")) for path in (deployed, tunable)]
    for path, arrays in cases:
        loaded = tf.saved_model.load(path)
        np.savez(
            arrays,
            images=images,
            # Deploying changes the order of sums: its own answers are the reference there.
            output=loaded(images) if path == str(deployed) else small.predict(images, verbose=0),
            pooled=loaded.signatures["features"](images=tf.constant(images))["pooled"],
            jpeg=np.frombuffer(file, "uint8"),
            of_file=loaded.signatures["serve_bytes"](image_bytes=tf.constant([file]))["probabilities"],
        )
    printed = run_python(PLAIN_TENSORFLOW.format(cases=cases))
    assert printed.split() == ["0", str(len(small.trainable_variables))]


@pytest.mark.parametrize("deploy", [True, False])
@pytest.mark.parametrize(("policy", "dtype"), [("mixed_float16", "fp16"), ("mixed_bfloat16", "bf16")])
@pytest.mark.slow
def test_mixed_precision_gives_float32(policy, dtype, deploy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = shortened("se_resnet20")
    images = images_for(model)
    loaded = tf.saved_model.load(str(export.saved_model(model, tmp_path / "saved", deploy=deploy)))
    assert {variable.dtype for variable in loaded.variables} == {tf.float32}
    assert loaded(images).dtype == tf.float32
    assert loaded.signatures["features"](images=tf.constant(images))["pooled"].dtype == tf.float32
    # The deployed form computes in float32; half precision has 11 or 8 bits.
    tolerance = 0.02 if deploy else 1e-6
    report = export.verify(tmp_path / "saved", model, repeats=0, verbose=0)
    assert report.passed, report.failures
    assert report.dtype == ("fp32" if deploy else dtype)
    assert report.reference == "the Keras model short, in float32"
    np.testing.assert_allclose(loaded(images), model.predict(images, verbose=0), atol=tolerance)


def must_compile(path):
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    assert functions
    return [function.signature.name for function in functions if function.attr["_XlaMustCompile"].b]


@pytest.mark.slow
@pytest.mark.parametrize("deploy", [True, False])
def test_no_function_must_be_compiled(saved, deploy):
    assert must_compile(saved("grouped", deploy)) == []


@pytest.mark.skipif(not ALL, reason="make test-all does this")
@pytest.mark.slow
@pytest.mark.parametrize("deploy", [True, False])
def test_no_function_of_se_resnext50_must_be_compiled(deploy, tmp_path):
    model = se_keras.SEResNeXt50(weights=None, input_shape=(64, 64, 3))
    assert must_compile(export.saved_model(model, tmp_path / "saved", deploy=deploy)) == []


def test_grouped_convolution_of_keras_is_warned_of(tmp_path):
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, groups=2)(inputs))
    with pytest.warns(UserWarning, match=r"compiled by XLA.*GroupedConv2D"):
        path = export.saved_model(model, tmp_path / "saved", deploy=False)
    assert must_compile(path)


@pytest.mark.slow
def test_write_archive_has_the_batch_it_is_told(small, tmp_path):
    write_archive(small, tmp_path / "saved", batch=2)
    (spec,) = (
        tf.saved_model.load(str(tmp_path / "saved"))
        .signatures["serving_default"]
        .structured_input_signature[1]
        .values()
    )
    assert tuple(spec.shape) == (2, 32, 32, 3)


# Training.


@pytest.mark.slow
def test_training_obeys_dropout_and_batch_norm_only_where_it_can_be_tuned(deployed, tunable, small):
    images = images_for(small)
    loaded = tf.saved_model.load(str(deployed))
    np.testing.assert_array_equal(loaded(images, training=True), loaded(images))
    assert list(loaded.trainable_variables) == []
    assert list(loaded.regularization_losses) == []
    assert not hasattr(loaded, "serve_train")

    loaded = tf.saved_model.load(str(tunable))
    before = {variable.name: variable.numpy() for variable in loaded.variables}
    first, second = loaded(images, training=True), loaded.serve_train(images)
    assert not np.allclose(first, second), "dropout"
    assert not np.allclose(first, loaded(images)), "batch statistics"
    changed = [variable.name for variable in loaded.variables if not np.array_equal(before[variable.name], variable)]
    assert {name.rsplit("/", 1)[1] for name in changed} == {
        "moving_mean:0",
        "moving_variance:0",
        "seed_generator_state:0",
    }


def test_variables_have_the_names_of_the_model(tunable, small):
    loaded = tf.saved_model.load(str(tunable))
    assert [v.name for v in loaded.variables] == [f"{v.path}:0" for v in small.variables]
    assert {v.name for v in loaded.trainable_variables} == {f"{v.path}:0" for v in small.trainable_variables}


@pytest.mark.slow
def test_tfsm_layer_fine_tunes(tunable, small):
    sample = load_sample()
    chosen = sample.y_train < 2
    images, classes = sample.x_train[chosen][:32].astype("float32"), sample.y_train[chosen][:32]
    layer = keras.layers.TFSMLayer(str(tunable), call_endpoint="serve", call_training_endpoint="serve_train")
    assert len(layer.trainable_variables) == len(small.trainable_variables)
    np.testing.assert_allclose(layer(images), answers(small, images), rtol=1e-4, atol=1e-6)
    model = keras.Sequential([keras.Input((32, 32, 3)), layer])
    model.compile(keras.optimizers.SGD(0.02), "sparse_categorical_crossentropy")
    before = [variable.numpy() for variable in layer.trainable_variables]
    first = model.train_on_batch(images, classes)
    unchanged = [v.name for v, old in zip(layer.trainable_variables, before, strict=True) if np.array_equal(v, old)]
    assert unchanged == []
    for _ in range(5):
        last = model.train_on_batch(images, classes)
    assert last < 0.9 * first


def test_tfsm_layer_serves_the_deployed_form(deployed, small):
    layer = keras.layers.TFSMLayer(str(deployed), call_endpoint="serve")
    assert layer.trainable_variables == []
    images = images_for(small)
    np.testing.assert_allclose(layer(images), answers(small, images), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_frozen_layers_stay_frozen(tmp_path):
    model = user_model()
    model.get_layer("first").trainable = False
    path = export.saved_model(model, tmp_path / "saved", deploy=False)
    expected = {f"{variable.path}:0" for variable in model.trainable_variables}
    loaded = tf.saved_model.load(str(path))
    assert {variable.name for variable in loaded.trainable_variables} == expected
    assert len(loaded.regularization_losses) == 2
    layer = keras.layers.TFSMLayer(str(path), call_endpoint="serve", call_training_endpoint="serve_train")
    assert len(layer.trainable_variables) == len(expected)


@pytest.mark.slow
def test_regularization_losses_are_those_of_the_model(tmp_path):
    model = user_model()
    loaded = tf.saved_model.load(str(export.saved_model(model, tmp_path / "saved", deploy=False)))
    losses = [float(loss()) for loss in loaded.regularization_losses]
    np.testing.assert_allclose(losses, [float(loss) for loss in model.losses], rtol=1e-6)
    loaded.trainable_variables[0].assign(tf.zeros_like(loaded.trainable_variables[0]))
    assert float(loaded.regularization_losses[0]()) == 0


HUB = """
    import numpy as np
    import tensorflow as tf
    import tensorflow_hub as hub
    import tf_keras
    arrays = np.load({arrays!r})
    images, classes = arrays["images"], arrays["classes"]
    np.testing.assert_allclose(hub.load({tunable!r})(images), arrays["output"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(hub.KerasLayer({deployed!r})(images), arrays["output"], rtol=1e-4, atol=1e-6)
    layer = hub.KerasLayer({tunable!r}, trainable=True)
    model = tf_keras.Sequential([tf_keras.Input((32, 32, 3)), layer])
    model.compile(tf_keras.optimizers.SGD(0.02), "sparse_categorical_crossentropy")
    before = [variable.numpy() for variable in layer.trainable_variables]
    first = model.train_on_batch(images, classes)
    assert not [v.name for v, old in zip(layer.trainable_variables, before) if np.array_equal(v.numpy(), old)]
    for _ in range(5):
        last = model.train_on_batch(images, classes)
    assert last < 0.9 * first, (first, last)
    penalised = hub.KerasLayer({penalised!r}, trainable=True)
    np.testing.assert_allclose([float(loss) for loss in penalised.losses], arrays["losses"], rtol=1e-6)
    print(len(before))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("tensorflow_hub") and importlib.util.find_spec("tf_keras")),
    reason="tensorflow_hub and tf_keras are not installed",
)
def test_tf_hub_loads_and_fine_tunes(deployed, tunable, small, run_python, tmp_path):
    sample = load_sample()
    chosen = sample.y_train < 2
    images = sample.x_train[chosen][:32].astype("float32")
    model = user_model()
    penalised = export.saved_model(model, tmp_path / "penalised", deploy=False)
    np.savez(
        tmp_path / "arrays.npz",
        images=images,
        classes=sample.y_train[chosen][:32],
        output=answers(small, images),
        losses=[float(loss) for loss in model.losses],
    )
    paths = {"arrays": tmp_path / "arrays.npz", "deployed": deployed, "tunable": tunable, "penalised": penalised}
    printed = run_python(HUB.format(**{name: str(path) for name, path in paths.items()}))
    assert int(printed.split()[-1]) == len(small.trainable_variables)


# Bytes.


def encoded(image, file_format, **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def with_alpha(image):
    image = image.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


FILES = {
    "jpeg": encoded(PHOTO, "JPEG"),
    "png": encoded(PHOTO, "PNG"),
    "cifar": encoded(Image.fromarray(load_sample().x_test[0]).resize((301, 207), Image.Resampling.BICUBIC), "JPEG"),
    "odd": encoded(PHOTO.resize((61, 173)), "PNG"),
    "tiny": encoded(PHOTO.resize((7, 5)), "PNG"),
    "gray": encoded(PHOTO.convert("L"), "JPEG"),
    "gray_alpha": encoded(with_alpha(PHOTO).convert("LA"), "PNG"),
    "palette": encoded(PHOTO.quantize(16), "PNG"),
    "rgba": encoded(with_alpha(PHOTO), "PNG"),
    "cmyk": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "progressive": encoded(PHOTO, "JPEG", progressive=True),
}


def opened(contents):
    return Image.open(io.BytesIO(contents))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("name", FILES)
def test_bytes_become_what_preprocess_makes_of_them(name, interpolation):
    record = se_keras.Preprocessing(size=(48, 40), interpolation=interpolation)
    image = resized_and_cropped(decoded(tf.constant(FILES[name])), record).numpy()
    difference = np.abs(image - se_keras.preprocess(opened(FILES[name]), record)[0])
    # Both round after each direction. Pillow does the height of a tall image first, which matters to one pixel in
    # five, and more to bicubic interpolation, which overshoots.
    is_tall = name == "odd"
    assert difference.max() <= (4 if is_tall and interpolation == "bicubic" else 1)
    assert (difference > 0).mean() < (0.3 if is_tall else 0.05)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_photo_is_turned_upright(orientation, prefix):
    data = Image.Exif()
    data[0x010F] = "a maker"
    data[0x0112] = orientation
    contents = encoded(PHOTO.resize((30, 20)), "JPEG", exif=data.tobytes() if not prefix else big_endian(orientation))
    assert int(exif_orientation(tf.constant(contents))) == orientation
    upright = np.asarray(ImageOps.exif_transpose(opened(contents)))
    np.testing.assert_array_equal(decoded(tf.constant(contents)), upright)


def big_endian(orientation):
    """EXIF data of one entry, in Motorola's byte order."""
    entry = (0x0112).to_bytes(2, "big") + (3).to_bytes(2, "big") + (1).to_bytes(4, "big")
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + orientation.to_bytes(2, "big") + bytes(6)


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_missing_or_broken_exif_data_turn_nothing(exif):
    contents = encoded(PHOTO.resize((30, 20)), "JPEG")
    if exif:
        segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
        contents = contents[:2] + segment + contents[2:]
    assert int(exif_orientation(tf.constant(contents))) == 0
    assert decoded(tf.constant(contents)).shape == (20, 30, 3)


def test_serve_bytes_equals_preprocess_and_the_model(tunable, small):
    files = list(FILES.values())
    served = tf.saved_model.load(str(tunable)).signatures["serve_bytes"](image_bytes=tf.constant(files))
    expected = answers(small, se_keras.preprocess([opened(file) for file in files], small))
    # One level of 255 in some pixels.
    np.testing.assert_allclose(served["probabilities"], expected, atol=5e-3)
    probabilities = served["probabilities"].numpy()
    for row, (labels, scores) in enumerate(zip(served["labels"].numpy(), served["scores"].numpy(), strict=True)):
        best = se_keras.decode_predictions(probabilities[row : row + 1], class_names=NAMES)[0]
        assert [label.decode() for label in labels] == [name for _, name, _ in best]
        np.testing.assert_allclose(scores, [score for *_, score in best])


def test_bytes_that_are_no_image_get_a_row_that_says_so(deployed):
    damaged = [b"", b"no image", FILES["jpeg"][:200], b"\xff\xd8\xff"]
    serve = tf.saved_model.load(str(deployed)).signatures["serve_bytes"]
    answer = serve(image_bytes=tf.constant([FILES["png"], *damaged, FILES["jpeg"]]))
    is_whole = [True, False, False, False, False, True]
    assert (answer["status"].numpy() == b"").tolist() == is_whole
    assert np.isfinite(answer["probabilities"]).all(axis=-1).tolist() == is_whole


def test_model_without_record_gets_stretched_images_and_indices(tmp_path):
    model = user_model()
    loaded = tf.saved_model.load(str(export.saved_model(model, tmp_path / "saved", top=9)))
    assert set(loaded.signatures["serving_default"].structured_outputs) == {"logits"}
    served = loaded.signatures["serve_bytes"](image_bytes=tf.constant([FILES["jpeg"]]))
    pixels = np.asarray(PHOTO.resize((12, 16), Image.Resampling.BILINEAR), "float32")
    np.testing.assert_allclose(stretched(np.asarray(PHOTO), (16, 12)), pixels, atol=1)
    expected = keras.ops.softmax(model(pixels[None]))
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-3)
    order = np.argsort(-served["probabilities"].numpy()[0])
    assert [int(label) for label in served["labels"].numpy()[0]] == list(order)


@pytest.mark.slow
def test_given_preprocessing_is_applied(tmp_path):
    model = shortened("se_resnet20", include_preprocessing=False)
    record = se_keras.Preprocessing(size=99, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), interpolation="bicubic")
    path = export.saved_model(model, tmp_path / "saved", preprocessing=record, deploy=False)
    served = tf.saved_model.load(str(path)).signatures["serve_bytes"](image_bytes=tf.constant([FILES["jpeg"]]))
    record = dataclasses.replace(record, size=32)
    expected = answers(model, record.normalize(se_keras.preprocess(PHOTO, record)))
    np.testing.assert_allclose(served["probabilities"], expected, atol=5e-3)


@pytest.mark.slow
def test_nested_network_keeps_its_record(small, tmp_path):
    model = keras.Sequential([keras.Input((32, 32, 3)), small])
    path = export.saved_model(model, tmp_path / "saved")
    served = tf.saved_model.load(str(path)).signatures["serve_bytes"](image_bytes=tf.constant([FILES["jpeg"]]))
    expected = answers(small, se_keras.preprocess(PHOTO, small))
    np.testing.assert_allclose(served["probabilities"], expected, atol=5e-3)


@pytest.mark.slow
def test_open_input_size_is_filled_from_the_record(tmp_path):
    model = shortened("se_resnet20", input_shape=(None, None, 3))
    loaded = tf.saved_model.load(str(export.saved_model(model, tmp_path / "saved")))
    assert loaded.signatures["serve_bytes"](image_bytes=tf.constant([FILES["jpeg"]]))["scores"].shape == (1, 5)
    assert loaded(np.zeros((1, 40, 56, 3), "float32")).shape == (1, 10)


@pytest.mark.parametrize(
    ("shape", "head"), [((32, 32, 1), True), ((None, None, 3), True), ((32, 32, 3), False), ((20,), True)]
)
def test_no_bytes_where_the_model_is_no_classifier_of_rgb_images(shape, head, tmp_path):
    inputs = keras.Input(shape)
    x = keras.layers.GlobalMaxPooling2D()(inputs) if head and len(shape) == 3 else inputs
    x = keras.layers.Dense(3, "sigmoid")(x) if head else keras.layers.Conv2D(3, 3)(x)
    loaded = tf.saved_model.load(str(export.saved_model(keras.Model(inputs, x), tmp_path / "saved")))
    expected = {"serving_default", "features"} if head and len(shape) == 3 else {"serving_default"}
    assert set(loaded.signatures) == expected


@pytest.mark.slow
def test_integer_input_stays_integer(tmp_path):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
    loaded = tf.saved_model.load(str(export.saved_model(model, tmp_path / "saved")))
    images = images_for(model).astype("uint8")
    np.testing.assert_allclose(loaded(images), answers(model, images), rtol=1e-5)
    assert loaded.signatures["serve_bytes"](image_bytes=tf.constant([FILES["png"]]))["labels"].shape == (1, 3)


@pytest.mark.parametrize(
    ("last", "name"),
    [
        (lambda x: keras.layers.Dense(3, "softmax")(x), "probabilities"),
        (lambda x: keras.layers.Softmax()(keras.layers.Dense(3)(x)), "probabilities"),
        (lambda x: keras.ops.sigmoid(x), "probabilities"),
        (lambda x: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])(x), "logits"),
        (lambda x: keras.layers.Dense(3, "tanh")(x), "output"),
        (lambda x: keras.layers.Reshape((2, 2))(x), "output"),
    ],
)
def test_output_is_named_after_what_it_is(last, name):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, last(inputs))
    assert SIGNATURES[scores_of(model).kind] == name
    assert pooled_output(model) is None


# The folder.


def test_labels_are_an_asset(deployed):
    assert (deployed / "assets" / "labels.txt").read_text("utf-8").splitlines() == list(NAMES)


@pytest.mark.slow
def test_folder_can_be_moved(small, tmp_path):
    path = export.saved_model(small, tmp_path / "first", class_names=NAMES)
    shutil.move(path, tmp_path / "second")
    loaded = tf.saved_model.load(str(tmp_path / "second"))
    assert loaded.labels.asset_path.numpy().decode() == str(tmp_path / "second" / "assets" / "labels.txt")
    assert str(tmp_path) not in (tmp_path / "second" / "saved_model.pb").read_bytes().decode("latin-1")


def serving_messages():
    """PredictionLog and what it holds, declared as in TensorFlow Serving; a map is a list of keys and values."""
    text, data, message = (
        getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{t}") for t in ("STRING", "BYTES", "MESSAGE")
    )
    fields = {
        "ModelSpec": [("name", 1, text, None), ("signature_name", 3, text, None)],
        "Entry": [("key", 1, text, None), ("value", 2, data, None)],
        "PredictRequest": [("model_spec", 1, message, "ModelSpec"), ("inputs", 2, message, "Entry")],
        "PredictLog": [("request", 1, message, "PredictRequest")],
        "PredictionLog": [("predict_log", 6, message, "PredictLog")],
    }
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package="serving", syntax="proto3")
    for message_name, rows in fields.items():
        declared = file.message_type.add(name=message_name)
        for name, number, kind, type_name in rows:
            label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED if name == "inputs" else 1
            field = declared.field.add(name=name, number=number, type=kind, label=label)
            if type_name:
                field.type_name = f".serving.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("serving.PredictionLog"))


def test_warm_up_requests_can_be_parsed_and_run(deployed, small):
    signatures = tf.saved_model.load(str(deployed)).signatures
    message = serving_messages()
    seen = []
    for record in tf.data.TFRecordDataset(str(deployed / WARM_UP_FILE)):
        log = message.FromString(record.numpy())
        assert log.SerializeToString() == record.numpy(), "no unknown fields"
        request = log.predict_log.request
        assert request.model_spec.name == small.name
        inputs = {
            entry.key: tf.io.parse_tensor(entry.value, signature_dtype(signatures, request, entry.key))
            for entry in request.inputs
        }
        signatures[request.model_spec.signature_name](**inputs)
        seen.append(request.model_spec.signature_name)
    assert sorted(seen) == sorted(signatures)


def signature_dtype(signatures, request, name):
    return signatures[request.model_spec.signature_name].structured_input_signature[1][name].dtype


# Faults.


@pytest.mark.slow
def test_folder_with_all_that_an_export_has_is_replaced(small, tmp_path):
    target = tmp_path / "saved"
    export.saved_model(small, target, class_names=NAMES)
    export.saved_model(small, target, overwrite=True)
    assert sorted(os.listdir(target)) == ["assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables"]
    assert os.listdir(tmp_path) == ["saved"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "each of the 10 classes; received 0"),
        ("airplane", "must be a sequence of strings.*'airplane'"),
        ([*NAMES[:-1], NAMES[0]], "'airplane' for the classes 0, 9"),
        ([*NAMES[:-1], 3], "`class_names` have 3 for class 9"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message, small, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.saved_model(small, tmp_path / "saved", class_names=labels)
    assert os.listdir(tmp_path) == []


def test_model_that_cannot_be_exported_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match=r"no known input shape.*model.build"):
        export.saved_model(keras.Sequential([keras.layers.Dense(2)]), tmp_path / "saved")
    with pytest.raises(ValueError, match="contains its preprocessing"):
        export.saved_model(small, tmp_path / "saved", preprocessing=se_keras.Preprocessing())
    with pytest.raises(ValueError, match="`top` must be an integer of at least 1; received top=0"):
        export.saved_model(small, tmp_path / "saved", top=0)
    assert os.listdir(tmp_path) == []
