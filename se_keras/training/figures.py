"""Figures of a run: its curves, and the confusion of its model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from se_keras.class_names_file import caption
from se_keras.figures import new_figure
from se_keras.files import FIGURE, replacing
from se_keras.training.evaluate import Evaluation

# Distinguishable for readers with red-green color blindness (Okabe and Ito, 2008), and in gray.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def draw_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], path: str | os.PathLike, *, title: str) -> None:
    """Draws accuracy and loss over epochs: validation as solid lines, training as dashed lines.

    Args:
        histories: Maps each name in the legend to the rows of a run's `log.csv`; at most four. Epochs that were not
            validated are left out of the solid lines.
        path: The PNG to write; an earlier figure is replaced.
        title: Title above the figure.

    Raises:
        ValueError: There is no history, or there are more than four.
        ImportError: matplotlib is not installed.
    """
    if not 1 <= len(histories) <= len(COLORS):
        raise ValueError(f"`histories` must have 1 to {len(COLORS)} runs; received {len(histories)}.")
    figure = new_figure(9, 4)
    axes = figure.subplots(1, 2)
    for axis, metric, unit, factor in ((axes[0], "accuracy", "accuracy, %", 100), (axes[1], "loss", "loss", 1)):
        for color, (name, rows) in zip(COLORS, histories.items(), strict=False):
            for prefix, style, what in (("val_", "-", "validation"), ("", "--", "training")):
                measured = {row["epoch"]: factor * row[key] for row in rows if (key := f"{prefix}{metric}") in row}
                marker = "o" if len(measured) == 1 else None
                label = f"{name}, {what}"
                axis.plot(
                    [*measured], [*measured.values()], style, color=color, marker=marker, label=label, linewidth=1.6
                )
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylabel(unit)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    with replacing(path, overwrite=True, kind=FIGURE) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def draw_confusion(evaluation: Evaluation, path: str | os.PathLike, *, title: str) -> None:
    """Draws the confusion matrix, in percent of each true class.

    Args:
        evaluation: The evaluation.
        path: The PNG to write; an earlier figure is replaced.
        title: Title above the figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    counts = evaluation.confusion
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(evaluation.class_names)
    side = min(max(4.5, 0.45 * classes + 2), 24)
    figure = new_figure(side + 0.8, side)
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    if classes <= 40:
        names = [caption(name) for name in evaluation.class_names]
        axis.set_xticks(range(classes), names, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(classes), names, fontsize=8)
    if classes <= 20:
        for row, column in np.ndindex(shares.shape):
            if shares[row, column] >= 0.05:
                shade = "black" if shares[row, column] > 55 else "white"
                text = f"{shares[row, column]:.1f}" if classes <= 12 else f"{shares[row, column]:.0f}"
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color=shade)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, label="% of the true class", shrink=0.8)
    with replacing(path, overwrite=True, kind=FIGURE) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
