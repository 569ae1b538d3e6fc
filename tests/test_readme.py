"""The README's Python runs as it stands, on a small network and a few images."""

import pathlib
import re

import pytest
from PIL import Image

from se_keras.training import load_sample

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
# What is large or far away in the README: what stands in for it here.
SMALLER = {
    "SEResNet50": "SEResNet20",
    "160": "32",
    "epochs=5": "epochs=1, verbose=0",
    'data="photos")': 'data="photos", repeats=0, gpu_images=0)',
    'keras.applications.MobileNetV2(weights="imagenet")': "se_keras.SEResNet20(se=None)",
    "sample.x_test": "sample.x_test[::10]",
    "sample.x_test[::10][:3]": "sample.x_test[:3]",
    "sample.y_test": "sample.y_test[::10]",
}


def shortened(snippet):
    for large, small in SMALLER.items():
        snippet = snippet.replace(large, small)
    return snippet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `photos` of two classes, where the snippets run one after another."""
    sample = load_sample()
    folder = tmp_path_factory.mktemp("readme")
    for name, label in (("daisy", 0), ("roses", 1)):
        (folder / "photos" / name).mkdir(parents=True)
        for index, image in enumerate(sample.x_train[sample.y_train == label][:8]):
            Image.fromarray(image).save(folder / "photos" / name / f"{index}.png")
    return folder


def test_there_are_five_snippets():
    assert len(SNIPPETS) == 5
    assert all(large in "".join(SNIPPETS) or "[::10][" in large for large in SMALLER)


def test_it_is_short():
    assert len(README.split()) <= 1500


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # Keras, of every `tf.data` pipeline
def test_snippets_run_in_the_order_of_the_page(folder, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("ai_edge_litert")
    monkeypatch.chdir(folder)
    for snippet in SNIPPETS:
        exec(compile(shortened(snippet), "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "cat" in printed
    assert "stage4_block3" in printed
    assert {"photos.keras", "photos.tflite", "photos.json", "figures"} <= {path.name for path in folder.iterdir()}
