"""The pictures of a report: that they are there, and that what they draw are the report's numbers."""

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from se_keras import export
from se_keras.export.agreement import LIMITS, Limits, compare
from se_keras.export.headroom import Headroom
from se_keras.export.inputs import Samples, random_images
from se_keras.export.layer_loss import LayerLoss
from se_keras.export.report import FIGURES, Report
from se_keras.export.report_figures import (
    MOST_POINTS,
    draw_answers,
    draw_headroom,
    draw_latency,
    draw_losses,
    report_figures,
)
from se_keras.export.speed import speed_of

pytest.importorskip("matplotlib")
SECONDS = [0.002, 0.004, 0.003, 0.05, 0.003]


def random_part(count):
    return Samples("random", {"images": random_images((1, 1, 3), count)})


def agreement(count=6, classes=8, runtime="tflite", noise=0.01, lost=0):
    rng = np.random.default_rng(0)
    expected = rng.normal(0, 4, (count, classes))
    found = expected + rng.normal(0, noise, expected.shape)
    for row in range(lost):
        found[row, expected[row].argmin()] = 50
    return compare(expected, found, random_part(count), runtime=runtime, dtype="fp32")


def report(*agreements, headrooms=(), losses=(), seconds=(), limits=LIMITS["fp32"]):
    return Report(
        path="out/model.tflite",
        format="tflite",
        dtype="fp32",
        size=1,
        reference="the Keras model tiny",
        agreements=agreements,
        headrooms=headrooms,
        losses=losses,
        speeds=(speed_of("tflite", 1, seconds, 1000),) if seconds else (),
        limits=limits,
    )


HEADROOMS = (Headroom("a/b/c", 64, 6550.4), Headroom("d", 64, 131008.0), Headroom("e", 64, 0.0))
LOSSES = (LayerLoss("a/b/c", "CONV_2D", 12.0, 11.0, 1), LayerLoss("d", "MEAN", float("inf"), 20.0, 0))


def points(ax, label):
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line.get_xydata()


def test_files_are_written_and_shown(tmp_path):
    whole = report(agreement(), headrooms=HEADROOMS, losses=LOSSES, seconds=SECONDS)
    paths = export.write_report(whole, tmp_path / "report")
    names = ["report.json", "report.md", "answers.png", "headroom.png", "losses.png", "latency.png"]
    assert [path.name for path in paths] == names
    assert sorted(os.listdir(tmp_path / "report")) == sorted(names)
    for path in paths[2:]:
        with Image.open(path) as picture:
            assert min(picture.size) > 300
    text = paths[1].read_text("utf-8")
    for name, title in FIGURES.items():
        assert f"![{title}]({name}.png)" in text


def test_only_what_is_known_is_drawn(tmp_path):
    assert list(report_figures(report())) == []
    assert list(report_figures(report(headrooms=HEADROOMS[2:], seconds=SECONDS))) == ["latency"]
    assert list(report_figures(report(agreement(), headrooms=HEADROOMS))) == ["answers", "headroom"]
    export.write_report(report(), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["report.json", "report.md"]
    assert "![" not in (tmp_path / "report.md").read_text("utf-8")


def test_without_matplotlib_the_report_is_text(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    paths = export.write_report(report(agreement(), seconds=SECONDS), tmp_path)
    assert [path.name for path in paths] == ["report.json", "report.md"]


def test_answers_and_differences_are_those_compared():
    entry = agreement(lost=2)
    assert entry.top1_agreement == pytest.approx(4 / 6)
    figure = draw_answers(report(entry, agreement(runtime="tflite_gpu")))
    upper, on_gpu, lower, _ = figure.axes
    expected, found = entry.answers
    np.testing.assert_array_equal(points(upper, "all classes"), np.stack([expected.ravel(), found.ravel()], axis=1))
    assert len(points(upper, "top class of both")) == 4
    lost = points(upper, "top class of the reference only")
    np.testing.assert_array_equal(lost[:, 0], expected[:2].max(-1))
    differences = lower.lines[0].get_ydata()
    assert np.abs(differences).max() == entry.max_error
    assert np.abs(differences).mean() == pytest.approx(entry.mean_error)
    assert f"{entry.max_error:.2g} apart" in lower.get_title()
    assert "66.7%" in upper.get_title()
    assert "LiteRT GPU" in on_gpu.get_title()


def test_limit_is_drawn_where_it_is_in_sight():
    entry = agreement()
    for allowed, shown in ((1.5 * entry.relative_error, True), (100 * entry.relative_error, False)):
        figure = draw_answers(report(entry, limits=Limits(relative_error=allowed)))
        limits = [line.get_ydata()[0] for line in figure.axes[1].lines if line.get_linestyle() == "--"]
        assert bool(limits) == shown
        if shown:
            assert limits == pytest.approx([-1.5 * entry.max_error, 1.5 * entry.max_error])


def test_of_many_answers_the_worst_is_drawn():
    entry = agreement(count=MOST_POINTS // 8 + 10, classes=16, noise=0.001)
    expected, found = entry.answers
    found[3, 5] += 3
    entry = compare(
        expected,
        found,
        random_part(len(found)),
        runtime="tflite",
        dtype="fp32",
    )
    differences = draw_answers(report(entry)).axes[1].lines[0].get_ydata()
    assert len(differences) == MOST_POINTS
    assert np.abs(differences).max() == entry.max_error


def test_features_have_no_first_class():
    features = np.arange(24.0).reshape(2, 3, 4)
    entry = compare(
        features,
        features + 1,
        random_part(2),
        runtime="tflite",
        dtype="fp32",
    )
    upper, lower = draw_answers(report(entry)).axes
    assert len(points(upper, "outputs")) == 24
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), 1)


def test_bars_are_the_ratios():
    ax = draw_headroom(report(headrooms=HEADROOMS)).axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends == pytest.approx([entry.ratio for entry in HEADROOMS[:2]])
    assert ends == pytest.approx([10, 0.5])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b/c", "d"]
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()  # the one that overflows stands out


def test_losses_are_drawn_in_execution_order():
    ax = draw_losses(report(losses=LOSSES)).axes[0]
    within, alone = ax.lines[:2]
    assert within.get_xydata().tolist() == [[0, 20], [1, 11]]
    assert alone.get_xydata().tolist() == [[1, 12]]  # no loss, no point
    assert [text.get_text() for text in ax.texts] == ["b/c "]


def test_names_of_losses_stay_inside_the_figure():
    first, last = (dataclasses.replace(LOSSES[0], name=f"a/{place}", place=place, alone=9.0) for place in (0, 80))
    texts = draw_losses(report(losses=(first, last))).axes[0].texts
    assert [(text.get_text(), text.get_ha()) for text in texts] == [(" a/0", "left"), ("a/80 ", "right")]


def test_runs_are_drawn_and_far_ones_marked():
    speed = speed_of("tflite", 2, SECONDS, 1000)
    assert speed.seconds == tuple(SECONDS)
    ax = draw_latency(report(seconds=SECONDS)).axes[0]
    (runs,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert runs.get_ydata() == pytest.approx([2, 4, 3, 3])
    assert runs.get_xdata().tolist() == [1, 2, 3, 5]
    (far,) = [line for line in ax.lines if line.get_marker() == "^"]
    assert far.get_xdata() == [4]
    assert [text.get_text() for text in ax.texts] == [" 50"]
    assert ax.lines[0].get_ydata()[0] == pytest.approx(1e3 * speed.median)


def test_json_has_the_runs_and_not_the_answers():
    content = report(agreement(), seconds=SECONDS).to_dict()
    assert content["speeds"][0]["seconds"] == tuple(SECONDS)
    assert "answers" not in content["agreements"][0]
    assert dataclasses.replace(agreement(), answers=None) == agreement()
