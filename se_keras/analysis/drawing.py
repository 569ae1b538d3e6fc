"""Parts that all figures of gates share: colors, titles, legends, and the files."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from se_keras.analysis.tables import Rows, write_csv
from se_keras.files import Kind, kind_of, replacing_together

# Okabe and Ito's colors without their yellow, which is invisible on paper, and then three of Paul Tol's.
COLORS = ("#000000", "#E69F00", "#CC79A7", "#009E73", "#0072B2", "#D55E00", "#56B4E9", "#882255", "#999933", "#332288")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")
DOTS_PER_INCH = 200


def figure_targets(paths: Sequence[pathlib.Path]) -> dict[str | os.PathLike, Kind]:
    """Returns the files that figures are written to, for `files.check_targets`.

    Args:
        paths: The PNG files.

    Returns:
        The paths of the PNG and CSV files, and the kind of each.

    Raises:
        ValueError: A path does not end in .png.
    """
    for path in paths:
        if path.suffix != ".png":
            raise ValueError(f"`path` must end in .png; received {os.fspath(path)!r}.")
    files = [file for path in paths for file in (path, path.with_suffix(".csv"))]
    return {file: kind_of(file) for file in files}


def written(paths: Sequence[pathlib.Path], drawn: Sequence[tuple[Any, Rows]], overwrite: bool) -> list[pathlib.Path]:
    """Writes each figure and its data to a PNG file and a CSV file next to it."""
    targets = figure_targets(paths)
    with replacing_together(targets, overwrite=overwrite) as temporaries:
        for (figure, table), picture, numbers in zip(drawn, temporaries[::2], temporaries[1::2], strict=True):
            figure.savefig(picture, dpi=DOTS_PER_INCH)
            write_csv(numbers, table)
    return [pathlib.Path(path) for path in targets]


def title_of(what: str, network: str, title: str, images: int) -> str:
    """Returns the title of a figure, with the network and the images below it."""
    return f"{what}\n{network}, {title}, {images:,} images"


def finish(ax: Any) -> None:
    """Draws the grid of a plot, and its legend above it."""
    ax.grid(alpha=0.3)
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(labels), fontsize="small", frameon=False)
