"""The studies in pretrained/ measure what they say, and their tables are made of what they wrote."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys

import keras
import pytest
from keras import layers

from se_keras import SqueezeExcite
from se_keras.layers import ImagePreprocessing

SCRIPTS = pathlib.Path(__file__).parents[1] / "pretrained"


def script(name: str):
    specification = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def small_network():
    inputs = keras.Input((32, 32, 3))
    preprocessing = ImagePreprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    x = layers.Conv2D(8, 3, strides=4, activation="relu", name="stem")(preprocessing(inputs))
    for stage in (2, 3):
        x = layers.Conv2D(8, 3, activation="relu", name=f"stage{stage}_block1_conv")(x)
        x = SqueezeExcite(4, name=f"stage{stage}_block1_se")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="small")
    block = model.get_layer("stage3_block1_se")
    block.reduce_bias.assign([-100.0, 100.0])  # the first unit is off for every image, the second on
    return model


@pytest.mark.slow
def test_study_of_gates_writes_figures_numbers_and_a_page(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    study = script("study_gates")
    small_network().save(tmp_path / "small.keras")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- own blocks:begin -->\n<!-- own blocks:end -->\n<!-- own pruning:begin -->\nstale\n"
                    "<!-- own pruning:end -->\nafter\n")  # fmt: skip
    options = ("--data", "sample", "--images", "60", "--pruning-images", "30", "--timed-calls", "0", "--title", "some")
    places = ("--out", str(tmp_path / "out"), "--page", str(page), "--mark", "own")
    monkeypatch.setattr(sys, "argv", ["study_gates.py", str(tmp_path / "small.keras"), *options, *places])
    study.main()
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert (numbers["network"], numbers["images"], numbers["data"]) == ("small", 60, "some")
    assert numbers["classes"][:2] == ["airplane", "automobile"]
    assert numbers["blocks"][1]["units"] == 2
    assert numbers["blocks"][1]["units_always_off"] == 1
    assert [row["bound"] for row in numbers["pruning"]][-1] == "stage3, all blocks"
    assert numbers["pruning"][-1]["folded"] == 1
    assert "keras" in numbers["versions"]
    figures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert figures == {"classes.png", "depth.png", "image.png", "profiles.png", "pruning.png"}
    text = page.read_text()
    assert text.startswith("before\n<!-- own blocks:begin -->\n`small` on 60 images (some)")
    assert "| `stage3_block1` | 8 | 2 (1) |" in text
    assert "| none | 0 of 2 |" in text
    assert text.endswith("<!-- own pruning:end -->\nafter\n")
    assert "stale" not in text
    assert text.count((tmp_path / "out" / "tables.md").read_text().split("\n")[-3]) == 1
    with pytest.raises(SystemExit, match="must have one line"):
        study.marked(text, "other", "")


def results(folder: pathlib.Path, arm: str, accuracies: dict[int, float], epochs: int = 4) -> None:
    facts = {"base": "base", "arm": arm, "reduction": None, "epochs": epochs, "learning_rate": 0.02, "images": [90, 10]}
    start = {"accuracy": 0.5, "greatest_difference_from_base": 1e-7, "parameters": 1000, "units_of_blocks": [4, 4, 8]}
    (folder / f"start.{arm}.json").write_text(json.dumps({"facts": facts, **start}))
    for seed, accuracy in accuracies.items():
        run = {"facts": facts, "seed": seed, "accuracy": accuracy, "seconds": 90.0}
        (folder / f"run.{arm}.seed{seed}.json").write_text(json.dumps(run))


def test_study_of_insertion_pairs_seeds_and_refuses_what_is_of_another(tmp_path):
    study = script("study_insertion")
    results(tmp_path, "plain", {0: 0.60, 1: 0.62})
    results(tmp_path, "se_r4", {1: 0.65, 0: 0.61, 2: 0.70})
    text = study.table(tmp_path)
    assert "| without SE | 1,000 | 4, 8 | 50.00 | 1e-07 | 2 | 61.00 ± 1.41 |  |" in text
    assert "| SE inserted, reduction 4 | 1,000 | 4, 8 | 50.00 | 1e-07 | 3 | 65.33 ± 4.51 | +2.00 ± 1.41 |" in text
    facts = json.loads((tmp_path / "run.plain.seed0.json").read_text())["facts"]
    assert study.known(tmp_path / "run.plain.seed0.json", facts)
    assert not study.known(tmp_path / "run.plain.seed9.json", facts)
    with pytest.raises(SystemExit, match="epochs was 4, is 5"):
        study.known(tmp_path / "run.plain.seed0.json", {**facts, "epochs": 5})
    results(tmp_path, "se_r8", {0: 0.6}, epochs=5)
    with pytest.raises(SystemExit, match="2 studies"):
        study.table(tmp_path)
    with pytest.raises(SystemExit, match="start with --data"):
        study.table(tmp_path / "empty")


def test_study_of_insertion_starts_from_equal_networks():
    study = script("study_insertion")
    plain, excited = study.network("plain"), study.network("se_r4")
    blocks = [layer for layer in excited.layers if isinstance(layer, SqueezeExcite)]
    assert [block.reduce_kernel.shape[1] for block in blocks] == [4, 4, 4, 8, 8, 8, 16, 16, 16]
    assert not [layer for layer in plain.layers if isinstance(layer, SqueezeExcite)]
    assert study.recipe_for(3).epochs == 3
    assert len(study.fingerprint()) == 16
