"""What is written runs in its own runtime first, and a file that answers differently gets no name."""

import os

import keras
import numpy as np
import pytest
from keras import layers
from small_networks import shortened

from se_keras import export
from se_keras.export import proof, to_onnx, to_openvino, to_saved_model, to_tflite
from se_keras.export.process import RuntimeRefusedError
from se_keras.export.proof import EIGHT_BITS, EXACT, FINITE, check_file, check_opens


@pytest.mark.parametrize(
    ("form", "package", "module", "step"),
    [
        ("saved_model", "tensorflow", to_saved_model, "inference_form"),
        ("tflite", "tensorflow", to_tflite, "converted"),
        ("onnx", "tf2onnx", to_onnx, "_converted"),
        ("openvino", "openvino", to_openvino, "_converted"),
    ],
)
def test_file_that_answers_differently_is_refused(form, package, module, step, tiny, tmp_path, monkeypatch):
    pytest.importorskip(package)
    right = getattr(module, step)
    other = keras.Model(tiny.inputs[0], layers.ReLU()(tiny.outputs[0]))
    monkeypatch.setattr(module, step, lambda model, *rest, **options: right(other, *rest, **options))
    ending = {"saved_model": "folder", "openvino": "model.xml"}.get(form, f"model.{form}")
    with pytest.raises(ValueError, match="the converted file does not match 'tiny', so it is not written"):
        getattr(export, form)(tiny, tmp_path / ending)
    assert os.listdir(tmp_path) == []


def test_how_far_answers_may_be_apart(tiny, tmp_path):
    path = export.tflite(tiny, tmp_path / "model.tflite")
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")
    for offset, tolerated, refused in ((0.3, EIGHT_BITS, EXACT), (1.0, FINITE, EIGHT_BITS)):
        size = np.linalg.norm(tiny(images)) / len(images) ** 0.5
        moved = keras.models.clone_model(tiny)
        moved.set_weights(tiny.get_weights())
        moved.layers[-1].bias.assign(np.full(4, offset * size))
        check_file(path, moved, tolerance=tolerated, feed={"images": images})
        with pytest.raises(ValueError, match=r"In LiteRT CPU.*the outputs differ by 0\.\d+ of their norm; at most"):
            check_file(path, moved, tolerance=refused, feed={"images": images})


def test_answers_below_the_step_of_8_bits_may_vanish(tiny, tmp_path):
    blank, faint = (keras.models.clone_model(tiny) for _ in range(2))
    for network, bias in ((blank, 0.0), (faint, 0.003)):
        network.layers[-1].set_weights([np.zeros((3, 4)), np.full(4, bias)])
    path = export.tflite(blank, tmp_path / "model.tflite")
    check_file(path, faint, tolerance=EIGHT_BITS, feed={"images": np.zeros((1, 8, 8, 3), "float32")})
    with pytest.raises(ValueError, match="the outputs differ by 1 of their norm"):
        check_file(path, faint)


def test_answers_of_another_shape_are_refused(tiny, tmp_path):
    path = export.tflite(tiny, tmp_path / "model.tflite")
    wider = keras.Model(tiny.inputs[0], layers.Concatenate()([tiny.outputs[0]] * 2))
    for tolerance in (EXACT, FINITE):
        with pytest.raises(ValueError, match=r"does not match.* have the shape \(2, 4\) instead of \(2, 8\)"):
            check_file(path, wider, tolerance=tolerance)


def test_half_precision_models_are_compared_with_more_room(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert export.saved_model(shortened("se_resnet20"), tmp_path / "folder", deploy=False).is_dir()


def test_a_crash_of_a_runtime_is_an_error(tmp_path, monkeypatch):
    class Crashed:
        def __init__(self, path):
            raise RuntimeRefusedError("ONNX Runtime refuses the model: its process ended with code -11")

    monkeypatch.setattr(proof, "Worker", Crashed)
    with pytest.raises(ValueError, match=r"does not load: .* ended with code -11\. Export it in another precision"):
        check_opens(tmp_path / "model.onnx")
