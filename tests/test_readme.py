"""The README's Python runs as it stands; small networks stand in for the large ones, and few images for many."""

import pathlib
import re

import keras
import pytest
from PIL import Image

import se_keras
from se_keras.layers import ImagePreprocessing
from se_keras.training import load_sample

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SMALLER = {
    "160": "32",
    "epochs=5": "epochs=1, verbose=0",
    'metrics=["accuracy"]': "run_eagerly=True",  # for one step: compiling takes longer
    'model, data="photos")': 'model, data="photos", repeats=0, gpu_images=0)',
    "sample.y_test), sep": "sample.y_test[::10], timed_calls=0), sep",
    "sample.x_test,": "sample.x_test[::10],",
    "sample.y_test,": "sample.y_test[::10],",
}


def shortened(snippet):
    for long, short in SMALLER.items():
        snippet = snippet.replace(long, short)
    return snippet


def small_network(input_shape=(32, 32, 3), classes=10, weights=None):
    images = keras.Input(input_shape)
    x = ImagePreprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))(images)
    x = keras.layers.Conv2D(16, 3, strides=4, use_bias=False, name="conv")(x)
    x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(classes, activation="softmax")(x))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with `photos` of two classes, and small networks under the names of large ones."""
    sample = load_sample()
    for name, label in (("daisy", 0), ("roses", 1)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index, image in enumerate(sample.x_train[sample.y_train == label][:8]):
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{index}.png")
    monkeypatch.setattr(se_keras, "SEResNet50", small_network)
    monkeypatch.setattr(keras.applications, "MobileNetV2", small_network)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_five_snippets():
    assert len(SNIPPETS) == 5
    assert [long for long in SMALLER if long not in "".join(SNIPPETS)] == []


def test_it_is_short():
    assert len(README.split()) <= 1500


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # Keras, of every `tf.data` pipeline
def test_snippets_run_in_the_order_of_the_page(folder, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("ai_edge_litert")
    for snippet in SNIPPETS:
        exec(compile(shortened(snippet), "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "cat" in printed
    assert "stage4_block3" in printed
    assert {"photos.keras", "photos.tflite", "photos.json", "figures"} <= {path.name for path in folder.iterdir()}
