"""The demo: the real thing with fewer epochs, and what it refuses."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

import se_keras_cli
from se_keras.demo import GROUPS, IMAGES_A_GROUP, draw_predictions, grouped, run_demo
from se_keras.training.sources import load_sample


@pytest.mark.slow
def test_demo_end_to_end(tmp_path, capsys):
    output = tmp_path / "out"
    code = se_keras_cli.main(["demo", "--epochs", "1", "--output", str(output), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert code == 0
    assert result["parameters"] == {"SE-ResNet-20": 280_958, "ResNet-20": 272_474}
    assert all(0.85 < accuracy < 1 for accuracy in result["accuracy"].values())
    assert result["images"] == IMAGES_A_GROUP * len(GROUPS)
    assert all(0 <= accuracy <= 1 for accuracy in result["adapted"].values())
    files = ["model.keras", "saved_model", "model.tflite", "model_int8.tflite"]
    assert [entry["path"].rsplit("/", 1)[1] for entry in result["exports"]] == files
    for entry in result["exports"][:3]:
        assert entry["agreement"] == 1.0
        assert entry["difference"] < 1e-4
        assert entry["size"] > 274_000 * 4
        assert 0 < entry["latency"] < 1
    int8 = result["exports"][3]
    assert int8["size"] < 400_000
    assert int8["agreement"] > 0.9
    assert keras.models.load_model(output / "model.keras").output_shape == (None, len(GROUPS))
    assert (output / "labels.txt").read_text().splitlines() == list(GROUPS)
    with Image.open(output / "predictions.png") as picture:
        assert picture.size == (816, 880)


def test_groups_hold_each_class_once():
    sample = load_sample()
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(sample.class_names)
    task = grouped(sample, 7)
    assert np.bincount(task.y_train).tolist() == [7] * len(GROUPS)
    assert len(task.y_test) == len(sample.y_test)
    assert task.y_test[sample.y_test == sample.class_names.index("ship")].tolist() == [2] * 50


def test_demo_refuses_no_epochs(tmp_path):
    with pytest.raises(ValueError, match="`epochs` must be an integer of at least 1; received epochs=0"):
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
