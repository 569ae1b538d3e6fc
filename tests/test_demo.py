"""The demo: one epoch of the real thing, and what it refuses."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from PIL import Image

import se_keras_cli
from se_keras.demo import draw_predictions, run_demo
from se_keras.training.data import load_sample


def test_demo_end_to_end(tmp_path, capsys):
    output = tmp_path / "out"
    code = se_keras_cli.main(["demo", "--epochs", "1", "--output", str(output), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert code == 0
    assert result["parameters"] == {"SE-ResNet-20": 274_847, "ResNet-20": 272_474}
    assert all(0 <= accuracy <= 1 for accuracy in result["accuracy"].values())
    assert [entry["name"] for entry in result["exports"]] == ["Keras", "SavedModel", "TFLite"]
    for entry in result["exports"]:
        assert entry["agreement"] == 1.0
        assert entry["difference"] < 1e-4
        assert entry["size"] > 274_847 * 4
        assert 0 < entry["latency"] < 1
    assert keras.models.load_model(output / "model.keras").output_shape == (None, 10)
    assert (output / "labels.txt").read_text().split() == list(load_sample().class_names)
    with Image.open(output / "predictions.png") as picture:
        assert picture.size == (816, 880)
    assert sorted(path.name for path in output.iterdir()) == [
        "labels.txt",
        "model.json",
        "model.keras",
        "model.tflite",
        "predictions.png",
        "saved_model",
    ]


def test_demo_refuses_labels_without_a_name(tmp_path):
    sample = dataclasses.replace(load_sample(), class_names=("one", "two"))
    with pytest.raises(ValueError, match=r"between 0 and 1.*`y_train` holds 0 to 9"):
        run_demo(tmp_path / "out", data=sample)
    assert not (tmp_path / "out").exists()


def test_demo_refuses_no_epochs(tmp_path):
    with pytest.raises(ValueError, match="`epochs` must be at least 1; received epochs=0"):
        run_demo(tmp_path / "out", epochs=0)


def test_picture_tells_right_from_wrong():
    sample = load_sample()
    right = np.eye(10, dtype="float32")[sample.y_test]
    wrong = np.roll(right, 1, axis=1)
    blue, orange = (0, 114, 178), (213, 94, 0)

    def colors(picture):
        return {color for _, color in picture.getcolors(1 << 24)}

    assert blue in colors(draw_predictions(sample, right))
    assert orange not in colors(draw_predictions(sample, right))
    assert orange in colors(draw_predictions(sample, wrong))
