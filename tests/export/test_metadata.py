"""Metadata in a `.tflite` file: what is written is found again, by others too, and the model stays as it was."""

import base64
import io
import os
import subprocess
import sys
import tempfile
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf

import se_keras
from se_keras.class_names_file import class_names_text
from se_keras.export import metadata_tables
from se_keras.export.metadata import ClassifierMetadata, add_classifier_metadata, read_metadata
from se_keras.export.tflite_file import holds_data, read_model
from se_keras.native_output import native_output_held

LABELS = ("zebra", "ångström", "a b, c", "ant", " bee")  # not sorted, and one that is no plain line
NORMALIZATION = {"mean": 0, "std": 1}
KINDS = ("float32", "uint8", "int8")

# The metadata's flatbuffer, filled with every kind of field by the schema's own generated Python code, which
# mediapipe 0.10.21 has in it.
ELSEWHERE = base64.b64decode(
    "HAAAAE0wMDEUACAAHAAYABQAEAAMAAgAAAAEABQAAAAcAAAAJAAAACgAAAAsAAAABAIAAAgCAAAcAgAABQAAADEuMy4wAAAAAQAAAGwAAAAB"
    "AAAAYQAAAAEAAAAQAAAADAAQAAwAAAAIAAQADAAAAAwAAACYAAAAsAEAAAEAAAAYAAAAAAASABAADAAAAAAACAAAAAAABAASAAAADAAAAFAA"
    "AABgAAAAAQAAABAAAAAMABQAEAAMAAsABAAMAAAAEAAAAAAAAAIQAAAAFAAAAAIAAABlbgAAAQAAAGQAAAAJAAAAbmFtZXMudHh0AAAAOP//"
    "/wwAAAAAAAABBAAEAAQAAAABAAAAeQAAAAEAAAAUAAAAEAAYABQAAAAQAAwACAAEABAAAAAUAAAALAAAAJAAAAC4AAAA6AAAAMz///8IAAAA"
    "DAAAAAEAAAAAAIC/AQAAAAAAgD8CAAAASAAAAAQAAACs////EAAAAAAAAAEIAAwACAAEAAgAAAAIAAAAFAAAAAMAAAAAAIBAAACgQAAAwEAD"
    "AAAAAACAPwAAAEAAAEBA7P///wgAAAAAAAAD0v///wAAAD8IAAwACwAEAAgAAAAQAAAAAAAAAggACgAJAAQACAAAAAwAAAAAAQYACAAEAAYA"
    "AAAJAAAABAAAACgAAAAcAAAAEAAAAAQAAAABAAAAYwAAAAEAAAB3AAAAAQAAAGgAAAABAAAAbgAAAAEAAAB4AAAABAAAAG1haW4AAAAAAgAA"
    "AHY3AAATAAAAZnJvbSBhbm90aGVyIHdyaXRlcgAJAAAAZWxzZXdoZXJlAAAA"
)


def images(count):
    """Smooth pictures over the whole range: noise would leave quantization no range to find inside the network."""
    height, width, phase = np.meshgrid(
        np.linspace(0, 3, 32), np.linspace(0, 5, 32), np.arange(3 * count), indexing="ij"
    )
    pictures = 127.5 + 127.5 * np.sin(height * (1 + phase % 4) + width * (1 + phase % 3) + phase)
    return pictures.reshape(32, 32, count, 3).transpose(2, 0, 1, 3).round().astype("uint8")


def convert(outputs, inputs, kind):
    """A `.tflite` file by TensorFlow's converter alone."""
    model = keras.Model(inputs, outputs)
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((1, *inputs.shape[1:]), tf.float32)]
    archive.add_endpoint("serving_default", lambda images: model(images, training=False), signature)
    with tempfile.TemporaryDirectory() as folder, native_output_held():
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if kind != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None].astype("float32")] for image in images(20))
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = getattr(tf, kind)
        return converter.convert()


def classifier(kind):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = se_keras.SqueezeExcite(reduction=4)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return convert(keras.layers.Dense(len(LABELS), activation="softmax")(x), inputs, kind)


@pytest.fixture(scope="module")
def models():
    return {kind: classifier(kind) for kind in KINDS}


def with_metadata(model, **changes):
    return add_classifier_metadata(model, **{"class_names": LABELS, "name": "small", **NORMALIZATION, **changes})


def interpreter(model):
    with native_output_held():
        runner = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(model_content=model)
        runner.allocate_tensors()
    return runner


def scores(model, pictures):
    runner = interpreter(model)
    image, output = runner.get_input_details()[0], runner.get_output_details()[0]
    shift = 128 if image["dtype"] == np.int8 else 0
    rows = []
    for picture in pictures:
        runner.set_tensor(image["index"], (picture[None].astype("int32") - shift).astype(image["dtype"]))
        runner.invoke()
        rows.append(runner.get_tensor(output["index"])[0].copy())
    scale, zero_point = output["quantization"]
    return (np.stack(rows).astype("float32") - zero_point) * (scale or 1)


def contents(model):
    """Everything in a model as its runtime sees it: shapes, types, quantization, operations, constants."""
    runner = interpreter(model)
    tensors = [
        (tensor["name"], tensor["shape"].tolist(), tensor["dtype"], str(tensor["quantization_parameters"]))
        for tensor in runner.get_tensor_details()
    ]
    operations = [(entry["op_name"], list(entry["inputs"])) for entry in runner._get_ops_details()]
    return tensors, operations, runner.get_signature_list()


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_are_found_again(models, kind):
    assert read_metadata(models[kind]) is None
    model = with_metadata(models[kind], description="Tells animals from units.")
    assert read_metadata(model) == ClassifierMetadata("small", "Tells animals from units.", LABELS, (0.0,), (1.0,))


@pytest.mark.parametrize("kind", KINDS)
def test_model_computes_the_same_bits(models, kind):
    before, after = scores(models[kind], images(4)), scores(with_metadata(models[kind]), images(4))
    assert len(np.unique(before)) > 4
    np.testing.assert_array_equal(before, after)
    assert contents(models[kind]) == contents(with_metadata(models[kind]))


def test_weights_are_aligned_and_little_is_added(models):
    model = with_metadata(models["float32"])
    assert model[4:8] == b"TFL3"
    buffers = [buffer.data for buffer in read_model(model).buffers if buffer.data is not None]
    places = [buffer.ctypes.data - np.frombuffer(model, "uint8").ctypes.data for buffer in buffers if len(buffer)]
    assert len(places) > 5
    assert not any(place % 16 for place in places)
    assert len(model) - len(models["float32"]) < 2500


def test_labels_are_a_file_behind_the_model(models):
    model = with_metadata(models["float32"])
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        (entry,) = archive.infolist()
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode() == class_names_text(LABELS)
    # Readers on a phone map the file into memory and take it from there.
    assert entry.compress_type == zipfile.ZIP_STORED
    assert model[entry.header_offset :].startswith(b"PK\x03\x04")


def test_same_arguments_give_the_same_bytes(models):
    assert with_metadata(models["int8"]) == with_metadata(models["int8"])


def test_second_time_replaces_the_first(models):
    first = with_metadata(
        models["uint8"], class_names=[f"old {number}" for number in range(5)], name="first", description="An older one."
    )
    assert with_metadata(first) == with_metadata(models["uint8"])
    assert read_metadata(with_metadata(first)).name == "small"


@pytest.mark.parametrize("kind", KINDS)
def test_model_schema_of_the_runtime_agrees(models, kind):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(with_metadata(models[kind]))
    before = schema.ModelT.InitFromPackedBuf(models[kind])
    entries = {entry.name: entry.buffer for entry in model.metadata}
    assert set(entries) == {entry.name for entry in before.metadata} | {b"TFLITE_METADATA"}
    assert bytes(model.buffers[entries[b"TFLITE_METADATA"]].data[4:8]) == b"M001"
    assert len(model.buffers) == len(before.buffers) + 1
    assert (model.version, model.description) == (before.version, before.description)
    for one, other in zip(before.buffers, model.buffers, strict=False):
        np.testing.assert_array_equal(one.data, other.data)


def test_one_mean_is_repeated_beside_three_deviations(models):
    metadata = read_metadata(with_metadata(models["float32"], mean=127.5, std=(58.5, 57, 57.5)))
    assert metadata.mean == (127.5, 127.5, 127.5)
    assert metadata.std == (58.5, 57, 57.5)


@pytest.mark.parametrize(("kind", "lowest", "highest"), [("float32", -1, 1), ("uint8", 0, 255), ("int8", -128, 127)])
def test_statement_says_what_the_input_holds(models, kind, lowest, highest):
    model = with_metadata(models[kind], mean=127.5, std=127.5)
    start = model.index(b"M001") - 4
    image = metadata_tables.read(model[start:])["subgraph_metadata"][0]["input_tensor_metadata"][0]
    assert image["content"] == {"content_properties": ("ImageProperties", {"color_space": 1})}
    assert image["stats"] == {"max": [highest], "min": [lowest]}


def test_metadata_of_another_writer_are_understood():
    metadata = metadata_tables.read(ELSEWHERE)
    (subgraph,) = metadata["subgraph_metadata"]
    (image,), (output,) = subgraph["input_tensor_metadata"], subgraph["output_tensor_metadata"]
    texts = {name: metadata[name] for name in metadata if name != "subgraph_metadata"}
    assert texts == {
        "name": "elsewhere",
        "description": "from another writer",
        "version": "v7",
        "author": "a",
        "license": "l",
        "min_parser_version": "1.3.0",
    }
    assert image["dimension_names"] == ["n", "h", "w", "c"]
    assert image["content"] == {"content_properties": ("ImageProperties", {"color_space": 1})}
    threshold, (kind, normalization) = image["process_units"][0], image["process_units"][1]["options"]
    assert threshold == {}  # an option that is not needed here
    assert kind == "NormalizationOptions"
    assert {name: list(values) for name, values in normalization.items()} == {"mean": [1, 2, 3], "std": [4, 5, 6]}
    assert output["content"] == {"content_properties": ("FeatureProperties", {})}
    assert output["associated_files"] == [{"name": "names.txt", "description": "d", "type": 2, "locale": "en"}]


def test_metadata_of_another_writer_are_written_as_they_were_read():
    metadata = metadata_tables.read(ELSEWHERE)
    metadata["subgraph_metadata"][0]["input_tensor_metadata"][0]["process_units"].pop(0)  # without a known option
    again = metadata_tables.read(metadata_tables.write(metadata))
    assert repr(again) == repr(metadata)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": LABELS[:4]}, "each of the 5 classes; received 4"),
        ({"class_names": "abcde"}, "received `class_names` as one string"),
        ({"class_names": ["a", *LABELS[:3], "a"]}, "'a' for the classes 0, 4"),
        ({"class_names": [1, *LABELS[1:]]}, "`class_names` have 1 for class 0"),
        ({"std": 0}, r"`std` must be above 0; received \[0"),
        ({"std": (1, -1, 1)}, "`std` must be above 0"),
        ({"mean": (1, 2)}, r"`mean` must be one finite number, or one for each of 3 channels; received \[1. 2"),
        ({"mean": float("nan")}, "`mean` must be one finite number"),
    ],
)
def test_wrong_argument_is_explained(models, changes, message):
    with pytest.raises(ValueError, match=message):
        with_metadata(models["float32"], **changes)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04" * 100])
def test_other_file_is_refused(content):
    for function in (read_metadata, with_metadata):
        with pytest.raises(ValueError, match="A TFLite model must have b'TFL3' in bytes 4 to 7; received"):
            function(content)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_truncated_model_is_refused(models, share):
    for model in models.values():
        with pytest.raises(ValueError, match="The TFLite model is damaged or cut short"):
            with_metadata(model[: max(8, int(share * len(model)))])
        described = with_metadata(model)
        with pytest.raises(ValueError, match="The TFLite model is damaged or cut short"):
            read_metadata(described[: max(8, int(share * len(described)))])


def test_model_that_is_no_classifier_is_refused():
    inputs = keras.Input((8, 8, 3))
    model = convert([keras.layers.Flatten()(inputs), keras.layers.ReLU()(inputs)], inputs, "float32")
    with pytest.raises(ValueError, match=r"one input of shape .* outputs of shapes \[\(1, .*\), \(1, .*\)\]"):
        with_metadata(model)


def test_missing_package_is_named(models, monkeypatch):
    for package in ("ai_edge_litert", "tensorflow.lite.python"):
        monkeypatch.setitem(sys.modules, f"{package}.schema_py_generated", None)
    with pytest.raises(ImportError, match=r"needs the package 'ai_edge_litert'.*se_keras\[litert\]"):
        with_metadata(models["float32"])


def test_weights_behind_the_flatbuffer_are_read_and_not_lost(models):
    """TensorFlow writes models above 2 GB so."""
    model = read_model(models["float32"])
    weights = max((buffer for buffer in model.buffers if buffer.data is not None), key=lambda buffer: len(buffer.data))
    weights.offset, weights.size, weights.data = 10_000, weights.data.size, None
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    assert sum(map(holds_data, read_model(content).buffers)) == sum(
        map(holds_data, read_model(models["float32"]).buffers)
    )
    with pytest.raises(ValueError, match="stores weights after its flatbuffer"):
        with_metadata(content)


CLASSIFY = """
import sys
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
model, image = sys.argv[1:]
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model))
with vision.ImageClassifier.create_from_options(options) as classifier:
    result = classifier.classify(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.load(image)))
for category in result.classifications[0].categories:
    print(category.index, category.score, category.category_name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_mediapipe_classifies_with_the_file_as_it_is(models, kind, tmp_path):
    """In a Python of its own, which MEDIAPIPE_PYTHON names: older releases do not go with TensorFlow's protobuf."""
    python = os.environ.get("MEDIAPIPE_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import mediapipe"], capture_output=True).returncode:
        pytest.skip(f"{python} has no mediapipe; MEDIAPIPE_PYTHON can name a Python that has it")
    (tmp_path / "model.tflite").write_bytes(with_metadata(models[kind]))
    np.save(tmp_path / "image.npy", images(3)[2])
    command = [python, "-c", CLASSIFY, str(tmp_path / "model.tflite"), str(tmp_path / "image.npy")]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, env=environment)
    assert run.returncode == 0, run.stderr[-4000:]
    found = [line.split(maxsplit=2) for line in run.stdout.splitlines()]
    expected = scores(models[kind], images(3)[2:])[0]
    assert [int(index) for index, _, _ in found] == np.argsort(-expected, kind="stable").tolist()
    assert [name for _, _, name in found] == [LABELS[int(index)] for index, _, _ in found]
    # MediaPipe has a TFLite runtime of its own release, whose sums may be in another order.
    np.testing.assert_allclose([float(score) for _, score, _ in found], np.sort(expected)[::-1], rtol=0, atol=1e-6)
