"""Each export, reloaded in its own runtime, against the Keras model."""

import dataclasses
import os

import keras
import numpy as np
import pytest

import se_keras
from se_keras import export
from se_keras.export.files import native_output_held, replacing
from se_keras.export.runtime import TFLiteRunner
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS


def images_for(model, count=3):
    shape = (count, *model.input_shape[1:])
    return (np.arange(np.prod(shape)) * 7919 % 256).reshape(shape).astype("float32")


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)
    return se_keras.SEResNet20()


@pytest.fixture(scope="module")
def grouped():
    """SE-ResNeXt with one unit a stage: every kind of layer, little to convert."""
    keras.utils.set_random_seed(0)
    network = NETWORKS["se_resnext50"]
    network = dataclasses.replace(network, spec=dataclasses.replace(network.spec, num_blocks=(1, 1, 1, 1)))
    return assemble("tiny", network, Options(input_shape=(64, 64, 3), classes=5))


@pytest.mark.parametrize("name", ["small", "grouped"])
def test_tflite_equals_keras(name, request, tmp_path):
    model = request.getfixturevalue(name)
    runner = TFLiteRunner(export.tflite(model, tmp_path / "model.tflite"))
    images = images_for(model)
    np.testing.assert_allclose(runner(images), model.predict(images, verbose=0), rtol=1e-4, atol=1e-6)


def test_tflite_has_one_native_operation_a_grouped_convolution(grouped, tmp_path):
    runner = TFLiteRunner(export.tflite(grouped, tmp_path / "model.tflite"))
    operations = [operation["op_name"] for operation in runner.interpreter._get_ops_details()]
    convolutions = [layer for layer in grouped.layers if type(layer).__name__ in ("Conv2D", "GroupedConv2D")]
    excitations = [layer for layer in grouped.layers if isinstance(layer, se_keras.SqueezeExcite)]
    assert operations.count("CONV_2D") == len(convolutions) + 2 * len(excitations)
    assert not {"SPLIT", "SPLIT_V"} & set(operations)
    ranks = {len(tensor["shape"]) for tensor in runner.interpreter.get_tensor_details()}
    assert max(ranks) <= 4


def test_existing_target_is_kept_unless_told_otherwise(small, tmp_path):
    target = tmp_path / "model.tflite"
    target.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="Pass overwrite=True to replace it"):
        export.tflite(small, target)
    assert target.read_bytes() == b"precious"
    export.tflite(small, target, overwrite=True)
    assert target.read_bytes()[4:8] == b"TFL3"
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_open_input_size_is_refused_for_tflite(tmp_path):
    model = se_keras.SEResNet20(input_shape=(None, None, 3))
    with pytest.raises(ValueError, match=r"fixed input size.*\(None, None, 3\)"):
        export.tflite(model, tmp_path / "model.tflite")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_failure_leaves_what_was_there(kind, tmp_path):
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("old")
    else:
        target.mkdir()
        (target / "old").touch()

    def fail():
        with replacing(target, overwrite=True) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert os.listdir(tmp_path) == ["target"]
    assert target.read_text() == "old" if kind == "file" else (target / "old").exists()


def test_native_output_is_held_and_shown_on_failure(capfd):
    with native_output_held():
        os.write(2, b"chatter")
    assert capfd.readouterr().err == ""

    def fail():
        with native_output_held():
            os.write(2, b"the reason")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert capfd.readouterr().err == "the reason"
