"""Files of a report on an export: JSON, Markdown, and figures that show more than its tables.

The figures show where the outputs differ, how close the squeezes are to the limit of half precision, which operations
lose much in 8 bits, and how steady the time is.
"""

from __future__ import annotations

import importlib.util
import math
import os
import pathlib
from typing import Any

import numpy as np

from se_keras.export.agreement import Agreement
from se_keras.export.headroom import Headroom
from se_keras.export.layer_loss import LEAST_DECIBELS
from se_keras.export.report import FIGURES, Report, short_name
from se_keras.export.runtime import RUNTIMES
from se_keras.export.speed import Speed
from se_keras.figures import new_figure
from se_keras.files import FIGURE, Kind, json_with, replacing_together, text_of
from se_keras.spacing import evenly

# Okabe and Ito's colors, safe for color-blind readers.
BLUE, ORANGE, VERMILION, GREY = "#0072B2", "#E69F00", "#D55E00", "0.45"
DOTS_PER_INCH = 150
MOST_POINTS = 50_000  # per panel: more cannot be distinguished
NAMED_LOSSES = 5
FAR = 3  # times the median: slower runs are marked at the edge, or they would flatten all others


def write_report(report: Report, folder: str | os.PathLike) -> list[pathlib.Path]:
    """Writes a report as `report.json` and `report.md`, with figures if matplotlib is installed.

    Args:
        report: The report.
        folder: Target folder, created if necessary. An earlier report is replaced; other files with these names are
            not.

    Returns:
        The two files, and a PNG file for each of `report_figures`.

    Raises:
        FileExistsError: A file with one of these names is not part of a report.
    """
    figures = report_figures(report) if importlib.util.find_spec("matplotlib") else {}
    folder = pathlib.Path(folder)
    texts = {"report.json": report.to_json(), "report.md": report.to_markdown(list(figures))}
    names = [*texts, *(f"{name}.png" for name in figures)]
    kinds = report_targets(folder)
    with replacing_together({folder / name: kinds[folder / name] for name in names}, overwrite=True) as temporaries:
        for temporary, text in zip(temporaries, texts.values(), strict=False):
            temporary.write_text(text, "utf-8")
        for temporary, figure in zip(temporaries[len(texts) :], figures.values(), strict=True):
            figure.savefig(temporary, dpi=DOTS_PER_INCH)
    return [folder / name for name in names]


def report_targets(folder: str | os.PathLike) -> dict[str | os.PathLike, Kind]:
    """Returns the files that `write_report` may write, for `files.check_targets`.

    Args:
        folder: As in `write_report`.

    Returns:
        Their paths, and the kind of each.
    """
    folder = pathlib.Path(folder)
    figures: dict[str | os.PathLike, Kind] = {folder / f"{name}.png": FIGURE for name in FIGURES}
    return {
        folder / "report.json": json_with("path", "agreements", "passed", "failures"),
        folder / "report.md": text_of(r"# .*: (passed|FAILED)", name="a report"),
        **figures,
    }


def report_figures(report: Report) -> dict[str, Any]:
    """Draws the figures of a report.

    Args:
        report: The report.

    Returns:
        A `matplotlib.figure.Figure` for each entry of `FIGURES` that the report has data for.

    Raises:
        ImportError: matplotlib is not installed.
    """
    drawn = {}
    if any(entry.answers is not None for entry in report.agreements):
        drawn["answers"] = draw_answers(report)
    if any(math.isfinite(entry.ratio) for entry in report.headrooms):
        drawn["headroom"] = draw_headroom(report)
    if report.losses:
        drawn["losses"] = draw_losses(report)
    if report.speeds:
        drawn["latency"] = draw_latency(report)
    return drawn


def draw_answers(report: Report) -> Any:
    """Draws the file's outputs over the reference's, and their differences, one column per comparison.

    Args:
        report: A report with at least one agreement that has `answers`.

    Returns:
        A figure. Top: each output as a point, on the diagonal where both agree; in a second color
        the most probable class of each image where both agree, and in a third that of the
        reference where the file's differs. Bottom: the differences, and the largest that the
        limits allow where that is in view.

    Raises:
        ImportError: matplotlib is not installed.
    """
    entries = [entry for entry in report.agreements if entry.answers is not None]
    figure = new_figure(max(6.4, 4.2 * len(entries) + 0.6), 7.2)
    figure.suptitle(f"Outputs of the file and of {report.reference}\n{_what(report)}", fontsize=11)
    axes = figure.subplots(2, len(entries), squeeze=False, sharex="col")
    for entry, upper, lower in zip(entries, axes[0], axes[1], strict=True):
        _answers(upper, entry)
        _differences(lower, entry, report)
    axes[0, 0].set_ylabel("file")
    axes[1, 0].set_ylabel("file minus reference")
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes[0]), key=lambda pair: len(pair[0]))
    columns = 2 * len(entries)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize="small", markerscale=3)
    return figure


def _answers(ax: Any, entry: Agreement) -> None:
    ax.axline((0, 0), slope=1, color=GREY, linewidth=0.9, label="equal")
    for label, color, (x, y) in _groups(entry):
        ax.plot(x, y, linestyle="none", marker=".", markersize=3, color=color, label=label)
    title = f"{entry.count} {entry.images} {entry.unit}, {RUNTIMES[entry.runtime]}"
    ax.set_title(f"{title}\n{_shares(entry)}" if entry.top1_agreement is not None else title, fontsize="medium")
    ax.grid(alpha=0.3)


def _differences(ax: Any, entry: Agreement, report: Report) -> None:
    for _, color, (x, y) in _groups(entry):
        ax.plot(x, y - x, linestyle="none", marker=".", markersize=3, color=color)
    ax.axhline(0, color=GREY, linewidth=0.9, zorder=0)
    allowed = report.limits_of(entry).relative_error
    if allowed is not None and entry.relative_error > 0:
        limit = allowed * entry.max_error / entry.relative_error
        if limit < 5 * entry.max_error:  # farther away, it would flatten the differences
            for side in (-limit, limit):
                ax.axhline(side, color=VERMILION, linestyle="--", linewidth=1)
    title = f"at most {entry.max_error:.2g} apart, {entry.relative_error:.2g} of the largest"
    ax.set_title(title, fontsize="medium")
    ax.set_xlabel(f"reference ({entry.quantity})")
    ax.ticklabel_format(axis="y", scilimits=(-2, 3))
    ax.grid(alpha=0.3)


def _groups(entry: Agreement) -> list[tuple[str, str, tuple[np.ndarray, np.ndarray]]]:
    """Returns label, color, and points of all outputs, of the most probable classes, and of those the file misses."""
    if entry.answers is None:
        return []
    expected, found = entry.answers
    if entry.top1_agreement is None:
        return [("outputs", BLUE, _thinned(expected.ravel(), found.ravel()))]
    rows, best = np.arange(len(expected)), expected.argmax(-1)
    lost = found.argmax(-1) != best
    pairs = expected[rows, best], found[rows, best]
    groups = [
        ("all classes", BLUE, _thinned(expected.ravel(), found.ravel())),
        ("top class of both", ORANGE, (pairs[0][~lost], pairs[1][~lost])),
        ("top class of the reference only", VERMILION, (pairs[0][lost], pairs[1][lost])),
    ]
    return groups if lost.any() else groups[:2]


def _thinned(expected: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns evenly chosen points, and the one with the largest difference."""
    if len(expected) <= MOST_POINTS:
        return expected, found
    chosen = [*evenly(len(expected), MOST_POINTS - 1), np.abs(expected - found).argmax()]
    return expected[chosen], found[chosen]


def draw_headroom(report: Report) -> Any:
    """Draws how many times larger the sum of every squeeze could be in half precision.

    Args:
        report: A report with at least one finite headroom.

    Returns:
        A figure with one bar per squeeze, the first at the top, on a logarithmic axis.

    Raises:
        ImportError: matplotlib is not installed.
    """
    entries = [entry for entry in report.headrooms if math.isfinite(entry.ratio)]
    figure = new_figure(8.0, 1.9 + 0.2 * len(entries))
    ax = figure.subplots()
    places = np.arange(len(entries))
    least = report.limits.headroom
    colors = [_headroom_color(entry, least) for entry in entries]
    ax.barh(places, [entry.ratio - 1 for entry in entries], left=1, color=colors, height=0.7)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.set_yticks(places, [short_name(entry.name) for entry in entries], fontsize="small")
    ax.set_ylim(len(entries) - 0.4, -0.6)
    ax.axvline(1, color="black", linewidth=1)
    if least is not None:
        ax.axvline(least, color=VERMILION, linestyle="--", linewidth=1, label=f"required for a GPU: {least:g}")
        figure.legend(loc="outside lower center", fontsize="small")
    low, high = min(entry.ratio for entry in entries), max(entry.ratio for entry in entries)
    ax.set_xlim(min(0.7, low / 1.5), max(high * 2.2, 10))
    for place, entry in zip(places, entries, strict=True):
        text = f" {entry.ratio:.2g} " if entry.ratio < 10 else f" {entry.ratio:,.0f} "
        ax.text(entry.ratio, place, text, va="center", ha="left" if entry.ratio > 1 else "right", fontsize="x-small")
    ax.set_xlabel("65,504 divided by the largest sum (below 1, it overflows)")
    ax.set_title(f"Half-precision headroom of the squeezes\n{_what(report)}", fontsize=11)
    ax.grid(alpha=0.3, axis="x")
    return figure


def _headroom_color(entry: Headroom, least: float | None) -> str:
    return VERMILION if least is not None and entry.ratio < least else BLUE


def draw_losses(report: Report) -> Any:
    """Draws the signal-to-noise ratio of every operation, alone and within the network, in execution order.

    Args:
        report: A report with losses.

    Returns:
        A figure with two points per operation; the five that lose most alone are named, and operations without any
        loss have no point.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(9.0, 5.0)
    ax = figure.subplots()
    entries = sorted(report.losses, key=lambda entry: entry.place)
    for label, color, values in (
        ("within the network", GREY, [entry.within for entry in entries]),
        ("alone", BLUE, [entry.alone for entry in entries]),
    ):
        pairs = [(entry.place, value) for entry, value in zip(entries, values, strict=True) if math.isfinite(value)]
        ax.plot(*np.array(pairs).reshape(-1, 2).T, linestyle="none", marker="o", markersize=4, color=color, label=label)
    for entry in report.losses[:NAMED_LOSSES]:
        if math.isfinite(entry.alone):
            left = entry.place < entries[-1].place / 2
            side, align = (" {}", "left") if left else ("{} ", "right")  # towards the middle, where there is room
            place = (entry.place, entry.alone)
            ax.annotate(side.format(short_name(entry.name)), place, ha=align, va="center", fontsize="x-small")
    ax.axhline(LEAST_DECIBELS, color=VERMILION, linestyle="--", linewidth=1, label="1% of the power is noise")
    ax.set_xlabel("operation, in execution order")
    ax.set_ylabel("signal to noise (dB)")
    ax.set_title(f"Loss of every operation\n{_what(report)}", fontsize=11)
    ax.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def draw_latency(report: Report) -> Any:
    """Draws the time of every timed run, in order.

    Args:
        report: A report with at least one speed.

    Returns:
        A figure with one panel per speed: the runs as points, their median as a line, and their
        middle half shaded. Runs above three times the median are triangles at the upper edge,
        labeled with their milliseconds.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(7.0, 1.0 + 2.8 * len(report.speeds))
    axes = figure.subplots(len(report.speeds), 1, squeeze=False).ravel()
    figure.suptitle(f"Time of a call\n{_what(report)}", fontsize=11)
    for ax, speed in zip(axes, report.speeds, strict=True):
        _runs(ax, speed)
    axes[-1].set_xlabel("run, after the warm-up")
    return figure


def _runs(ax: Any, speed: Speed) -> None:
    milliseconds = 1e3 * np.array(speed.seconds)
    runs = np.arange(1, len(milliseconds) + 1)
    low, high, median = (1e3 * second for second in (*speed.quartiles, speed.median))
    is_far = milliseconds > FAR * median
    top = 1.25 * max(milliseconds[~is_far].max(), high)
    ax.axhspan(low, high, color=BLUE, alpha=0.2, linewidth=0, label=f"middle half: {low:.3g} to {high:.3g} ms")
    ax.axhline(median, color=BLUE, linewidth=1.2, label=f"median: {median:.3g} ms")
    ax.plot(runs[~is_far], milliseconds[~is_far], linestyle="none", marker="o", markersize=4, color="black")
    for run, millisecond in zip(runs[is_far], milliseconds[is_far], strict=True):
        ax.plot(run, 0.95 * top, marker="^", markersize=6, color=VERMILION)
        ax.annotate(f" {millisecond:.3g}", (run, 0.95 * top), va="center", fontsize="x-small")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylim(0, top)
    ax.set_ylabel("ms")
    threads = "1 thread" if speed.threads == 1 else f"{speed.threads} threads"
    least = f"{len(runs)} runs, the fastest {1e3 * speed.least:.3g} ms"
    ax.set_title(f"{RUNTIMES[speed.runtime]}, {threads}, batch {speed.batch}; {least}", fontsize="medium")
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small", ncols=2, loc="lower center")


def _what(report: Report) -> str:
    return f"{report.name}, {report.dtype}"


def _shares(entry: Agreement) -> str:
    text = f"same top class: {entry.top1_agreement or 0.0:.1%}"
    if entry.accuracy is None or entry.reference_accuracy is None:
        return text
    return f"{text}\naccuracy {entry.accuracy:.1%}, reference {entry.reference_accuracy:.1%}"
