"""The figure of pruning: what each bound saves and costs."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from se_keras.analysis.drawing import COLORS, DASHES, MARKERS, finish, new_figure, title_of, written
from se_keras.analysis.tables import pruning_table
from se_keras.surgery.pruning_report import PruningReport


def plot_pruning(
    reports: Sequence[PruningReport], path: str | os.PathLike, *, title: str = "images", overwrite: bool = False
) -> list[pathlib.Path]:
    """Draws the savings and costs of pruning at several bounds.

    Args:
        reports: Reports of `pruning_curve`, in the order of their bounds; at least one.
        path: The PNG file; a CSV file of the same name is written next to it.
        title: Description of the images.
        overwrite: Whether to replace existing files.

    Returns:
        Paths of the two files.

    Raises:
        FileExistsError: A file exists, and `overwrite` is False.
        ImportError: matplotlib is not installed.
        ValueError: No report.
    """
    if not reports:
        raise ValueError("`reports` must have at least one report; received none.")
    return written([pathlib.Path(path)], [(_pruning(reports, title), pruning_table(reports))], overwrite)


def _pruning(reports: Sequence[PruningReport], title: str) -> Any:
    first = reports[0]
    places = np.arange(len(reports))
    figure = new_figure(max(6.4, 1.1 * len(reports) + 2), 6.8)
    figure.suptitle(title_of("Pruning of SE blocks with constant gates", first.network, title, first.images))
    upper, lower = figure.subplots(2, 1, sharex=True)
    if first.accuracy is not None:
        upper.axhline(100 * first.accuracy[0], color="0.4", linestyle=":", label="accuracy before")
        after = [100 * report.accuracy[1] for report in reports if report.accuracy]
        upper.plot(places, after, color=COLORS[4], marker="o", label="accuracy after")
    if first.agreement is not None:
        same = [100 * (report.agreement or 0.0) for report in reports]
        upper.plot(places, same, color=COLORS[1], marker="s", linestyle="--", label="same class as before")
    upper.set_ylabel("% of the images")
    lower.axhline(100, color="0.4", linestyle=":")
    for number, (name, label) in enumerate(
        {"parameters": "parameters", "macs": "multiply-adds", "seconds": "time per image"}.items()
    ):
        pairs = [getattr(report, name) for report in reports]
        if all(pairs):
            shares = [100 * after / before for before, after in pairs]
            style = {"color": COLORS[3 + number], "marker": MARKERS[number], "linestyle": DASHES[number]}
            lower.plot(places, shares, label=label, **style)
    lower.set_ylabel("% of before")
    lower.set_xlabel("bound on the standard deviation of a gate\n(pruned SE blocks)")
    counts = [f"{report.bound:g}\n({len(report.pruned)} of {len(report.changes)})" for report in reports]
    lower.set_xticks(places, counts)
    for ax in (upper, lower):
        finish(ax)
    return figure
