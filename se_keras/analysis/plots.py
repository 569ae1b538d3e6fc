"""Figures of gates and of pruning, each with a CSV file of its data."""

from __future__ import annotations

import os
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from se_keras.analysis.drawing import COLORS, DASHES, MARKERS, finish, title_of, written
from se_keras.analysis.gates import image_gates
from se_keras.analysis.results import BlockGates, Gates
from se_keras.analysis.tables import (
    Rows,
    chosen_blocks,
    class_table,
    depth_table,
    image_table,
    profile_table,
    pruning_table,
    stage_of,
)
from se_keras.class_names_file import caption
from se_keras.errors import check_count
from se_keras.figures import new_figure
from se_keras.spacing import evenly
from se_keras.surgery.prune import PruningReport

GATE_FIGURES = ("profiles", "depth", "classes")
MOST_LINES = len(COLORS)
# Minimum upper limits of the axes of `depth`, to avoid magnifying tiny values.
LEAST_TOPS = (0.2, 0.1, 0.05)


def plot_gates(
    gates: Gates,
    folder: str | os.PathLike,
    *,
    blocks: Sequence[str] | None = None,
    channels: int = 50,
    overwrite: bool = False,
) -> list[pathlib.Path]:
    """Draws the paper's figures for a network: profiles, depth, and classes by channels.

    `profiles`: mean gate of evenly sampled channels, one line per class, for the last block of each
    stage and all blocks of the last stage (figure 7 of arXiv 1709.01507v4). `depth`: for every block,
    the share of the variance that is between classes, and the share of saturated gates. `classes`:
    the mean gate of every class and channel as a heat map. Colors are safe for color-blind readers.

    Args:
        gates: Result of `collect_gates`.
        folder: Target folder, created if necessary, for one PNG file and one CSV file per figure.
        blocks: Names of the blocks in `profiles` and `classes` instead of the default.
        channels: Maximum number of channels per block in `profiles`, at least 1.
        overwrite: Whether to replace existing files.

    Returns:
        Paths of the six files.

    Raises:
        FileExistsError: A file exists, and `overwrite` is False.
        ImportError: matplotlib is not installed.
        ValueError: A block is unknown.
    """
    channels = check_count("channels", channels)
    shown = chosen_blocks(gates, blocks)
    classes = evenly(len(gates.class_names), MOST_LINES)
    drawn = [
        (_profiles(gates, shown, classes, channels), profile_table(gates, shown, classes, channels)),
        (_depth(gates), depth_table(gates)),
        (_classes(gates, shown), class_table(gates, shown)),
    ]
    return written([pathlib.Path(folder, f"{name}.png") for name in GATE_FIGURES], drawn, overwrite)


def plot_image(
    model: keras.Model,
    image: np.ndarray,
    gates: Gates,
    path: str | os.PathLike,
    *,
    blocks: Sequence[str] | None = None,
    top: int = 5,
    title: str = "",
    overwrite: bool = False,
) -> list[pathlib.Path]:
    """Draws an image, and next to it the channels that each block amplifies most for it.

    These are the channels whose gates are farthest above their means over the dataset. Each is
    shown as the feature map that its gate scales.

    Args:
        model: The network that `gates` were collected from, whose blocks must be on images.
        image: One image in the scale of the model's input, without a batch axis.
        gates: Result of `collect_gates`.
        path: The PNG file; a CSV file of the same name with all channels is written next to it.
        blocks: Names of the blocks, in order, instead of the last of each stage and all of the last stage.
        top: Number of channels per block, at least 1.
        title: Description of the image, such as its class.
        overwrite: Whether to replace existing files.

    Returns:
        Paths of the two files.

    Raises:
        FileExistsError: A file exists, and `overwrite` is False.
        ImportError: matplotlib is not installed.
        ValueError: A block is unknown, the gates are from another network, or the image has the wrong shape.
    """
    top = check_count("top", top)
    found = image_gates(model, image)
    shown = chosen_blocks(gates, blocks)
    for block in shown:
        if block.name not in found or len(found[block.name].gates) != block.channels:
            raise ValueError(f"`gates` must be from this network; {model.name!r} has no block like {block.name!r}.")
    table = image_table(found, shown)
    figure = _image(image, found, gates, shown, table, top, title)
    return written([pathlib.Path(path)], [(figure, table)], overwrite)


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
        ValueError: There are no reports.
    """
    if not reports:
        raise ValueError("`reports` must have at least one report; received none.")
    return written([pathlib.Path(path)], [(_pruning(reports, title), pruning_table(reports))], overwrite)


def _about(what: str, gates: Gates) -> str:
    return title_of(what, gates.network, gates.title, gates.images)


def _profiles(gates: Gates, blocks: Sequence[BlockGates], classes: Sequence[int], channels: int) -> Any:
    columns = min(2, len(blocks))
    rows = -(-len(blocks) // columns)
    figure = new_figure(5.6 * columns, 0.9 + 2.3 * rows + 0.5)
    some = "" if len(classes) == len(gates.class_names) else f" ({len(classes)} of {len(gates.class_names)} classes)"
    figure.suptitle(_about(f"Mean gate of each class{some}", gates))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(blocks) :]:
        ax.set_axis_off()
    for ax, block in zip(axes, blocks, strict=False):
        picked = evenly(block.channels, channels)
        places = np.arange(len(picked))
        if len(classes) > 1:
            ax.plot(places, block.total_mean[picked], color="0.75", linewidth=4, label="all images")
        for number, row in enumerate(classes):
            style = {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[number % len(DASHES)]}
            ax.plot(places, block.mean[row, picked], linewidth=1.3, label=caption(gates.class_names[row]), **style)
        ticks = evenly(len(picked), 6)
        ax.set_xticks(ticks, [str(picked[i]) for i in ticks])
        ax.set_title(f"{block.name} ({len(picked)} of {block.channels} channels)", fontsize="medium")
        ax.set_ylim(*_with_margin(block.limits))
        ax.set_xlabel("channel")
        ax.set_ylabel("mean gate")
        ax.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), handlelength=3)
    return figure


def _with_margin(limits: tuple[float, float]) -> tuple[float, float]:
    margin = 0.03 * (limits[1] - limits[0])
    return limits[0] - margin, limits[1] + margin


def _depth(gates: Gates) -> Any:
    names = [block.name for block in gates.blocks]
    places = np.arange(len(names))
    figure = new_figure(max(6.4, 2.5 + 0.28 * len(names)), 8.4)
    figure.suptitle(_about("Gates over depth", gates))
    upper, middle, lower = axes = figure.subplots(3, 1, sharex=True)
    upper.set_ylabel("class-specificity:\nshare of the variance\nthat is between classes")
    if len(gates.class_names) > 1:
        share = [block.class_specificity for block in gates.blocks]
        upper.plot(places, share, color=COLORS[4], marker="o", label="observed")
        chance = (len(gates.class_names) - 1) / max(gates.images - 1, 1)
        upper.axhline(chance, color="0.4", linestyle=":", label="by chance alone")
    else:
        upper.text(0.5, 0.5, "needs labels", transform=upper.transAxes, ha="center")
    top = [block.total_high_share.mean() for block in gates.blocks]
    bottom = [block.total_low_share.mean() for block in gates.blocks]
    middle.plot(places, top, color=COLORS[5], marker="^", label="above 0.99 of the gate's range")
    middle.plot(places, bottom, color=COLORS[4], marker="v", linestyle="--", label="below 0.01 of it")
    middle.set_ylabel("saturation:\nshare of the gates")
    spread = [np.sqrt(np.mean(np.square(block.total_std))) for block in gates.blocks]
    greatest = [block.total_std.max() for block in gates.blocks]
    lower.plot(places, spread, color=COLORS[3], marker="s", label="root mean square over channels")
    lower.plot(places, greatest, color=COLORS[0], marker="D", linestyle="--", label="maximum over channels")
    lower.set_ylabel("standard deviation\nof a gate over images")
    for ax, least in zip(axes, LEAST_TOPS, strict=True):
        ax.set_ylim(0, max(ax.get_ylim()[1], least))
        for line in ax.get_lines():
            line.set_clip_on(line.get_marker() in (None, "None"))  # shows the whole marker at 0
        finish(ax)
        for border in range(1, len(names)):
            if stage_of(names[border]) != stage_of(names[border - 1]):
                ax.axvline(border - 0.5, color="0.6", linewidth=0.8)
    ticks = evenly(len(names), 40)
    lower.set_xticks(ticks, [names[i].removesuffix("_se") for i in ticks], rotation=60, ha="right", fontsize="small")
    return figure


def _classes(gates: Gates, blocks: Sequence[BlockGates]) -> Any:
    count = len(gates.class_names)
    height = min(max(0.16 * count, 0.8), 4.5)
    figure = new_figure(9.0, 1.0 + len(blocks) * (height + 0.75))
    figure.suptitle(_about("Mean gate of classes by channels", gates))
    axes = figure.subplots(len(blocks), 1, squeeze=False).ravel()
    for ax, block in zip(axes, blocks, strict=True):
        low, high = block.limits
        picture = ax.imshow(block.mean, aspect="auto", cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
        ax.set_title(block.name, fontsize="medium")
        ticks = evenly(count, 25)
        ax.set_yticks(ticks, [caption(gates.class_names[i]) for i in ticks], fontsize="x-small")
        ax.set_xticks(range(0, block.channels, _round_step(block.channels, 12)))
        figure.colorbar(picture, ax=ax, label="mean gate", pad=0.01)
    axes[-1].set_xlabel("channel")
    return figure


def _round_step(count: int, most: int) -> int:
    """Returns the smallest power of two with at most `most` ticks, because channels come in powers of two."""
    step = 1
    while count > step * most:
        step *= 2
    return step


def _image(
    image: np.ndarray, found: Any, gates: Gates, blocks: Sequence[BlockGates], table: Rows, top: int, title: str
) -> Any:
    figure = new_figure(3.4 + 1.5 * top, 1.0 + 1.75 * len(blocks))
    what = f"Most amplified channels{f': {title}' if title else ''}"
    figure.suptitle(_about(what, gates).replace(gates.title, f"means over {gates.title}"))
    grid = figure.add_gridspec(len(blocks), top + 2)
    picture = figure.add_subplot(grid[:, :2])
    picture.imshow(_visible(np.asarray(image)))
    picture.set_title("image")
    note = (
        "right: the maps that the gates scale,\nblue low, yellow high; above each,\nits gate and the mean of that gate"
    )
    picture.text(0.5, -0.03, note, transform=picture.transAxes, ha="center", va="top", fontsize="small")
    picture.set_axis_off()
    for row, block in enumerate(blocks):
        first = [line for line in table[1] if line[0] == block.name][:top]
        for column, (_, channel, gate, mean, *_) in enumerate(first):
            ax = figure.add_subplot(grid[row, column + 2])
            maps = np.atleast_2d(found[block.name].maps[..., channel])
            ax.imshow(maps, cmap="cividis", interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_title(f"channel {channel}\n{gate:.2f} (mean {mean:.2f})", fontsize="small")
            if column == 0:
                ax.set_ylabel(textwrap.fill(block.name.removesuffix("_se").replace("_", " "), 9), fontsize="small")
    return figure


def _visible(image: np.ndarray) -> np.ndarray:
    """Converts an image of any scale to pixels that can be drawn."""
    if image.shape[-1] not in (1, 3) and image.shape[0] in (1, 3):
        image = np.moveaxis(image, 0, -1)
    if image.dtype != np.uint8 and not (image.min() >= 0 and image.max() > 1.5):  # not pixels from 0 to 255
        spread = max(float(np.ptp(image)), 1e-9)
        image = (image - image.min()) / spread * 255
    pixels = np.clip(image, 0, 255).astype("uint8")
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


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
