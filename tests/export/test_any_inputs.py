"""Networks of sound, text, and tables, and of several inputs or outputs, from insertion to the command line."""

import functools
import json

import any_inputs
import keras
import numpy as np
import pytest
from cases import ALL

from se_keras import SqueezeExcite, export, surgery
from se_keras.export.inputs import part_of
from se_keras.export.model_ends import answers_of
from se_keras.export.runtime import open_runner

NAMES = tuple(any_inputs.NETWORKS)
PACKAGES = {"saved_model": "tensorflow", "tflite": "tensorflow", "onnx": "tf2onnx", "openvino": "openvino"}
ENDINGS = {"saved_model": "folder", "tflite": "model.tflite", "onnx": "model.onnx", "openvino": "model.xml"}
FILES = [*PACKAGES.items()]


@functools.cache
def trained(name):
    """The network with SE blocks, after one step of training."""
    keras.utils.set_random_seed(0)
    model = surgery.insert_squeeze_excite(any_inputs.NETWORKS[name]())
    blocks = [layer for layer in model.layers if isinstance(layer, SqueezeExcite)]
    before = [np.concatenate([weight.ravel() for weight in block.get_weights()]) for block in blocks]
    values = list(any_inputs.samples_for(name, 16).values())
    inputs = values if len(values) > 1 else values[0]
    targets = keras.tree.map_structure(lambda answer: 1 - keras.ops.convert_to_numpy(answer), model(inputs))
    model.compile(keras.optimizers.SGD(1.0), keras.tree.map_structure(lambda _: "mse", targets))
    model.fit(inputs, targets, verbose=0)
    assert blocks
    for block, start in zip(blocks, before, strict=True):
        assert (np.concatenate([weight.ravel() for weight in block.get_weights()]) != start).any(), block.name
    return model


def written(name, form, path, **options):
    pytest.importorskip(PACKAGES[form])
    return getattr(export, form)(trained(name), path / ENDINGS[form], verbose=0, **options)


def verified(file, name, **options):
    return export.verify(file, trained(name), repeats=0, gpu_images=0, verbose=0, **options)


QUICK = (("text", "saved_model"), ("image_and_table", "tflite"))
EACH = [
    pytest.param(name, form, marks=() if (name, form) in QUICK else pytest.mark.slow)
    for name in NAMES
    for form in PACKAGES
]


@pytest.mark.parametrize(("name", "form"), EACH)
def test_a_file_answers_by_the_names_of_the_model(name, form, tmp_path):
    file = written(name, form, tmp_path)
    data = any_inputs.samples_for(name, 3)
    runner, expected = open_runner(file), answers_of(trained(name), data)
    assert {one.name for one in runner.inputs} == set(data)
    found = runner.run(dict(reversed(data.items())))
    assert len(found) == len(expected)
    assert set(found) == {"kind", "area"} or len(found) == 1
    for values, own in zip(expected, (found[key] for key in sorted(found)), strict=True):
        np.testing.assert_allclose(own, values, atol=1e-5)
    report = verified(file, name, data=data)
    assert report.passed, report.failures
    assert {entry.images for entry in report.agreements} == {"random", "real"}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tflite", "onnx", "openvino"])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_calibrated_on_arrays_by_name(name, form, tmp_path):
    if form == "openvino":
        pytest.importorskip("nncf")
    data = any_inputs.samples_for(name, 120)
    file = written(name, form, tmp_path, dtype="int8", data=data)
    for entry in verified(file, name, data=data).agreements:
        assert entry.images == "random" or entry.max_error < 0.1, entry.output  # of probabilities


@pytest.mark.slow
def test_the_description_says_what_the_inputs_are(tmp_path):
    data = any_inputs.samples_for("image_and_table", 120)
    written("image_and_table", "tflite", tmp_path, dtype="int8", data=tuple(data.values()), input_type="int8")
    described = json.loads((tmp_path / "model.json").read_text())
    photo, table = described["input"]
    assert photo == {"name": "photo", "shape": [16, 16, 3], "dtype": "int8", "kind": "image", "range": [0.0, 255.0]}
    assert "range" not in table
    assert list(described["calibration"]["range"]) == ["photo", "table"]
    written("text", "tflite", tmp_path, overwrite=True)
    described = json.loads((tmp_path / "model.json").read_text())
    assert described["input"] == {"name": "tokens", "shape": [12], "dtype": "int32", "kind": "tokens", "range": [0, 49]}
    assert "height" not in json.dumps(described)


def test_a_report_says_what_was_drawn_and_names_outputs(tmp_path):
    model = trained("class_and_map")
    model.save(tmp_path / "model.keras")
    report = export.verify(tmp_path / "model.keras", model, repeats=0, verbose=0)
    assert report.passed, report.failures
    assert [entry.output for entry in report.agreements] == ["area", "kind"]
    assert report.notes == ("Compared on random images only, from 0 to 1; pass photos as `data` (--data).",)
    assert "8 random, kind" in str(report)
    photos = any_inputs.samples_for("class_and_map", 3)["images"]
    wrong = keras.Model(model.inputs, {"kind": model.output["kind"], "area": 1.1 * model.output["area"]})
    report = export.verify(tmp_path / "model.keras", wrong, data=(photos,), labels=[0, 1, 2], repeats=0, verbose=0)
    assert report.failures
    assert all("area" in failure for failure in report.failures)
    assert [entry.accuracy is None for entry in report.agreements] == [True, True, True, False]


def test_a_file_of_another_model_is_refused(tmp_path):
    trained("image_and_table").save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="the file has 'photo', 'table', and the model 'tokens'"):
        export.verify(tmp_path / "model.keras", trained("text"), verbose=0)


def test_16_bits_need_floats(tmp_path):
    data = any_inputs.samples_for("text", 100)
    with pytest.raises(ValueError, match="takes only floats; the input 'tokens' of 'text' is int32"):
        written("text", "tflite", tmp_path, dtype="int16x8", data=data)


@pytest.mark.skipif(not ALL, reason="make test-all does this")
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES if ALL else NAMES[-2:])
def test_files_of_any_inputs_are_timed(name, tmp_path):
    files = [written(name, form, tmp_path) for form in ("saved_model", "tflite")]
    rows = export.benchmark({"model": trained(name), **{file.name: file for file in files}}, repeats=2, verbose=0)
    assert len(rows) == 3
    assert all(row.speed.median > 0 for row in rows)


@pytest.mark.slow
def test_a_saved_model_of_several_inputs_can_be_tuned(tmp_path):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(written("image_and_table", "saved_model", tmp_path, deploy=False)))
    data = part_of(any_inputs.samples_for("image_and_table", 4), 0, 4)
    np.testing.assert_allclose(loaded(data), answers_of(trained("image_and_table"), data)[0], atol=1e-5)
    assert loaded(data, training=True).shape == (4, 3)
    assert set(loaded.signatures["serving_default"].structured_input_signature[1]) == {"photo", "table"}
