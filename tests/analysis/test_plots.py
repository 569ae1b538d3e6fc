"""Every figure is drawn whole, beside a CSV file whose numbers are those that were collected."""

from __future__ import annotations

import csv
import dataclasses
import sys

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from se_keras import SqueezeExcite
from se_keras.analysis import BlockGates, Gates, collect_gates, image_gates, plot_gates, plot_image, plot_pruning
from se_keras.analysis.drawing import COLORS
from se_keras.analysis.tables import chosen_blocks, stage_of
from se_keras.surgery import GateChange, PruningReport

pytest.importorskip("matplotlib")


def made_up(names, classes=3, channels=8, seed=0) -> Gates:
    """Gates of blocks of these names, without any network."""
    rng = np.random.default_rng(seed)

    def block(name):
        shapes = {"mean": (classes, channels), "total_mean": (channels,), "quantiles": (classes, 1, channels)}
        shapes |= {"total_quantiles": (1, channels), "samples": (0, channels)}
        arrays = {
            field.name: rng.uniform(0.1, 0.9, shapes.get(field.name, (classes, channels)))
            for field in dataclasses.fields(BlockGates)
            if field.name not in ("name", "limits") and not field.name.startswith(("total_", "between"))
        }
        flat = ("total_mean", "total_std", "total_low_share", "total_high_share", "between_std")
        arrays |= {key: rng.uniform(0.1, 0.9, channels) for key in flat}
        arrays["total_quantiles"] = rng.uniform(0.1, 0.9, (1, channels))
        return BlockGates(name=name, limits=(0.0, 1.0), **arrays)

    return Gates(
        network="made_up",
        title="noise",
        class_names=tuple(f"class {i}" for i in range(classes)),
        counts=np.full(classes, 400),
        levels=(0.5,),
        bins=10,
        blocks=tuple(map(block, names)),
        sample_indices=np.zeros(0, int),
        sample_labels=np.zeros(0, int),
    )


BLOCKS = [f"stage{stage}_block{block}_se" for stage, count in ((2, 2), (3, 3), (4, 3)) for block in range(1, count + 1)]


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def is_drawn(path, least_width):
    """Whether a PNG is large enough and not of one color."""
    with Image.open(path) as image:
        return image.width >= least_width and len(image.convert("L").getcolors()) > 20


def titles_of(monkeypatch):
    from matplotlib.figure import Figure

    titles = []
    original = Figure.suptitle
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **kw: (titles.append(text), original(self, text, **kw)))
    return titles


def test_figures_of_gates_and_their_numbers(tmp_path, monkeypatch):
    gates, titles = made_up(BLOCKS), titles_of(monkeypatch)
    files = plot_gates(gates, tmp_path / "new" / "folder", channels=4)
    names = ["profiles.png", "profiles.csv", "depth.png", "depth.csv", "classes.png", "classes.csv"]
    assert [path.name for path in files] == names
    assert all(is_drawn(path, 1200) for path in files if path.suffix == ".png")
    assert len(titles) == 3
    assert all(title.endswith("\nmade_up, noise, 1,200 images") for title in titles)

    shown = ["stage2_block2_se", "stage3_block3_se", "stage4_block1_se", "stage4_block2_se", "stage4_block3_se"]
    profiles = rows_of(files[1])
    assert list(dict.fromkeys(row["block"] for row in profiles)) == shown
    assert sorted({int(row["channel"]) for row in profiles}) == [0, 2, 5, 7]
    assert len(profiles) == 5 * 4 * (3 + 1)
    for row in profiles:
        block, channel = gates.block(row["block"]), int(row["channel"])
        everything = row["class"] == "all images"
        mean = block.total_mean if everything else block.mean[gates.class_names.index(row["class"])]
        assert float(row["mean"]) == pytest.approx(mean[channel], rel=1e-5)

    depth = rows_of(files[3])
    assert [row["block"] for row in depth] == BLOCKS
    for row, block in zip(depth, gates.blocks, strict=True):
        assert float(row["class_specificity"]) == pytest.approx(block.class_specificity, rel=1e-5)
        assert float(row["high_share"]) == pytest.approx(block.total_high_share.mean(), rel=1e-5)
        assert float(row["greatest_std"]) == pytest.approx(block.total_std.max(), rel=1e-5)

    classes = rows_of(files[5])
    assert len(classes) == 5 * 3 * 8
    last = classes[-1]
    assert (last["class"], last["channel"], last["images"]) == ("class 2", "7", "400")
    assert float(last["quantile_0.5"]) == pytest.approx(gates.blocks[-1].quantiles[2, 0, 7], rel=1e-5)


def test_many_classes_one_class_and_chosen_blocks(tmp_path):
    files = plot_gates(made_up(["a", "b"], classes=30), tmp_path, blocks=["b"])
    assert {row["block"] for row in rows_of(files[1])} == {"b"}
    assert len({row["class"] for row in rows_of(files[1])}) == len(COLORS) + 1
    assert len({row["class"] for row in rows_of(files[5])}) == 30
    assert all(is_drawn(path, 1000) for path in plot_gates(made_up(["a"], classes=1), tmp_path / "one")[::2])


def test_files_are_not_replaced_unasked(tmp_path):
    gates = made_up(["a"])
    plot_gates(gates, tmp_path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        plot_gates(gates, tmp_path)
    plot_gates(gates, tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 6


def test_bad_input_to_plot_gates(tmp_path):
    with pytest.raises(ValueError, match="No SE block is called 'c'"):
        plot_gates(made_up(["a"]), tmp_path, blocks=["c"])
    with pytest.raises(ValueError, match="channels"):
        plot_gates(made_up(["a"]), tmp_path, channels=0)
    assert list(tmp_path.iterdir()) == []


def test_matplotlib_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"se_keras\[plots\]"):
        plot_gates(made_up(["a"]), tmp_path)


@pytest.fixture
def model():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same")(layers.Rescaling(1 / 64)(inputs))
    x = SqueezeExcite(2, name="first", activation="tanh")(x)
    return keras.Model(inputs, SqueezeExcite(2, name="second")(x), name="small")


@pytest.mark.parametrize("scale", ["pixels", "integers", "normalized"])
def test_channels_turned_up_for_an_image(model, rng, tmp_path, monkeypatch, scale):
    images = rng.uniform(0, 255, (20, 8, 8, 3))
    images = {"pixels": images.astype("uint8"), "integers": images, "normalized": images / 127.5 - 1}[scale]
    gates, titles = collect_gates(model, images, title="noise"), titles_of(monkeypatch)
    png, table = plot_image(model, images[4], gates, tmp_path / "image.png", title="nothing", top=3)
    assert titles == ["Most amplified channels: nothing\nsmall, means over noise, 20 images"]
    assert is_drawn(png, 1000)
    rows = rows_of(table)
    assert [row["block"] for row in rows] == ["first"] * 6 + ["second"] * 6
    raised = image_gates(model, images[4])["first"].gates - gates.block("first").total_mean
    assert [int(row["channel"]) for row in rows[:6]] == list(np.argsort(-raised))
    above = raised.max() / gates.block("first").total_std[raised.argmax()]
    assert float(rows[0]["std_above_mean"]) == pytest.approx(above, rel=1e-3)


def test_bad_input_to_plot_image(model, rng, tmp_path):
    image = rng.uniform(0, 255, (8, 8, 3))
    with pytest.raises(ValueError, match="must be from this network; 'small' has no block like 'a'"):
        plot_image(model, image, made_up(["a"]), tmp_path / "image.png")
    gates = collect_gates(model, image[None])
    with pytest.raises(ValueError, match="top"):
        plot_image(model, image, gates, tmp_path / "image.png", top=0)
    with pytest.raises(ValueError, match=r"must end in \.png"):
        plot_image(model, image, gates, tmp_path / "image")
    with pytest.raises(ValueError, match="shape"):
        plot_image(model, image[None], gates, tmp_path / "image.png")


def report(bound, **values):
    changes = (GateChange("a", 0.1, "folded" if bound >= 0.1 else "kept", "x"), GateChange("b", 0.5, "kept", "y"))
    costs = {"parameters": (100, 90), "macs": (1000, 990), "seconds": (0.02, 0.01), "accuracy": (0.9, 0.8)}
    return PruningReport(
        **{"network": "small", "bound": bound, "images": 50, "changes": changes, "agreement": 0.85, **costs, **values}
    )


def test_curve_of_pruning(tmp_path, monkeypatch):
    titles = titles_of(monkeypatch)
    png, table = plot_pruning([report(0.0), report(0.2)], tmp_path / "curve.png", title="noise")
    assert titles[0].endswith("\nsmall, noise, 50 images")
    assert is_drawn(png, 1200)
    rows = rows_of(table)
    assert [(row["bound"], row["pruned_blocks"], row["blocks"]) for row in rows] == [("0", "0", "2"), ("0.2", "1", "2")]
    assert (rows[0]["milliseconds_before"], rows[0]["milliseconds_after"]) == ("20", "10")
    assert (rows[1]["accuracy_after"], rows[1]["same_class"]) == ("0.8", "0.85")


def test_curve_of_what_was_not_measured(tmp_path):
    nothing = {"macs": None, "seconds": None, "accuracy": None, "agreement": None}
    png, table = plot_pruning([report(0.1, **nothing)], tmp_path / "curve.png")
    assert is_drawn(png, 1000)
    assert rows_of(table)[0]["macs_before"] == ""
    with pytest.raises(ValueError, match="at least one report"):
        plot_pruning([], tmp_path / "none.png")


def test_shown_blocks():
    assert stage_of("stage12_block1_se") == "stage12"
    assert stage_of("mixed0_se") == ""
    many = made_up([f"mixed{i}" for i in range(20)])
    assert [block.name for block in chosen_blocks(many)] == [
        "mixed0",
        "mixed4",
        "mixed8",
        "mixed11",
        "mixed15",
        "mixed19",
    ]
    paper = [f"stage{s}_block{b}_se" for s, n in ((2, 3), (3, 4), (4, 6), (5, 3)) for b in range(1, n + 1)]
    shown = [(s, b) for s, b in ((2, 3), (3, 4), (4, 6), (5, 1), (5, 2), (5, 3))]
    assert [block.name for block in chosen_blocks(made_up(paper))] == [f"stage{s}_block{b}_se" for s, b in shown]


def test_colors_differ():
    assert len(set(COLORS)) == len(COLORS) == 10
