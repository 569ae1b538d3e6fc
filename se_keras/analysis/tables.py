"""Data of the figures, as rows for CSV files."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.analysis.gates import ImageGates
from se_keras.analysis.results import BlockGates, Gates
from se_keras.spacing import evenly
from se_keras.surgery.prune import PruningReport

Rows = tuple[Sequence[str], list[Sequence[Any]]]
MOST_BLOCKS = 6  # in a figure


def write_csv(path: str | os.PathLike, table: Rows) -> None:
    """Writes a table as a CSV file.

    Args:
        path: The file, under a temporary name.
        table: Header and rows.
    """
    header, rows = table
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in rows)


def stage_of(name: str) -> str:
    """Returns the stage in a block's name: "stage2", or "block2" of "block2a" (`keras.applications`), or ""."""
    match = re.match(r"stage\d+(?=_)|block\d+(?=[a-z]_)", name)
    return match[0] if match else ""


def chosen_blocks(gates: Gates, names: Sequence[str] | None = None) -> list[BlockGates]:
    """Returns the blocks that a figure shows: the last of each stage and, as in the paper, all of the last stage.

    If these are more than six, six of them are chosen evenly.

    Args:
        gates: The collected gates.
        names: Names of the blocks to show instead.

    Returns:
        The blocks in the order of the network, or of `names`.

    Raises:
        ValueError: A name is unknown.
    """
    if names is not None:
        return [gates.block(name) for name in names]
    stages = [stage_of(block.name) for block in gates.blocks]
    last = [
        block
        for block, stage, following in zip(gates.blocks, stages, [*stages[1:], ""], strict=True)
        if stage != following or stage == stages[-1]
    ]
    return [last[i] for i in evenly(len(last), MOST_BLOCKS)]


def profile_table(gates: Gates, blocks: Iterable[BlockGates], classes: Sequence[int], channels: int) -> Rows:
    """Returns mean gates of evenly spaced channels for each class, and over all images.

    Args:
        gates: The collected gates.
        blocks: The blocks to show.
        classes: Indices of the classes to show.
        channels: Maximum number of channels per block.

    Returns:
        Columns: block, channel, class ("all images" for all), mean, std.
    """
    rows: list[Sequence[Any]] = []
    for block in blocks:
        for channel in evenly(block.channels, channels):
            for row in classes:
                numbers = block.mean[row, channel], block.std[row, channel]
                rows.append((block.name, channel, gates.class_names[row], *map(float, numbers)))
            numbers = block.total_mean[channel], block.total_std[channel]
            rows.append((block.name, channel, "all images", *map(float, numbers)))
    return ("block", "channel", "class", "mean", "std"), rows


def depth_table(gates: Gates) -> Rows:
    """Returns one row per block, from first to last.

    Args:
        gates: The collected gates.

    Returns:
        Columns: block, channels, mean gate, standard deviation over images (root mean square over
        channels), largest standard deviation of a channel, class-specificity (share of the
        variance that is between classes), shares of gates at the lower and upper ends.
    """
    header = ("block", "channels", "mean", "std", "greatest_std", "class_specificity", "low_share", "high_share")
    rows: list[Sequence[Any]] = []
    for block in gates.blocks:
        std = block.total_std
        numbers = (
            block.total_mean.mean(),
            np.sqrt(np.mean(np.square(std))),
            std.max(),
            block.class_specificity,
            block.total_low_share.mean(),
            block.total_high_share.mean(),
        )
        rows.append((block.name, block.channels, *map(float, numbers)))
    return header, rows


def class_table(gates: Gates, blocks: Iterable[BlockGates]) -> Rows:
    """Returns one row per block, class, and channel, with all statistics.

    Args:
        gates: The collected gates.
        blocks: The blocks to show.

    Returns:
        Columns: block, class, images, channel, mean, std, shares at the lower and upper ends, quantiles.
    """
    quantiles = [f"quantile_{level:g}" for level in gates.levels]
    rows: list[Sequence[Any]] = []
    for block in blocks:
        for row, name in enumerate(gates.class_names):
            for channel in range(block.channels):
                numbers = [getattr(block, key)[row, channel] for key in ("mean", "std", "low_share", "high_share")]
                numbers += list(block.quantiles[row, :, channel])
                rows.append((block.name, name, int(gates.counts[row]), channel, *map(float, numbers)))
    return ("block", "class", "images", "channel", "mean", "std", "low_share", "high_share", *quantiles), rows


def image_table(found: Mapping[str, ImageGates], blocks: Iterable[BlockGates]) -> Rows:
    """Returns the gates of one image alongside the statistics of all images.

    Args:
        found: Result of `image_gates`.
        blocks: The blocks to show.

    Returns:
        Columns: block, channel, gate, mean and std over all images, and the distance of the gate
        above the mean in units of this std; most amplified channels first in each block.
    """
    rows: list[Sequence[Any]] = []
    for block in blocks:
        gates = found[block.name].gates
        raised = gates - block.total_mean
        for channel in np.argsort(-raised, kind="stable"):
            std = float(block.total_std[channel])
            above = float(raised[channel]) / std if std > 0 else 0.0
            rows.append((block.name, int(channel), float(gates[channel]), float(block.total_mean[channel]), std, above))
    return ("block", "channel", "gate", "mean", "std", "std_above_mean"), rows


def pruning_table(reports: Iterable[PruningReport]) -> Rows:
    """Returns one row per bound.

    Args:
        reports: Reports of one network.

    Returns:
        Columns: bound, pruned blocks, blocks, images, and before and after of parameters, MACs,
        milliseconds, and accuracy, empty if not measured; share of images with the same class.
    """
    header = ["bound", "pruned_blocks", "blocks", "images"]
    for name in ("parameters", "macs", "milliseconds", "accuracy"):
        header += [f"{name}_before", f"{name}_after"]
    rows: list[Sequence[Any]] = []
    for report in reports:
        seconds = report.seconds and (1e3 * report.seconds[0], 1e3 * report.seconds[1])
        pairs = [pair or ("", "") for pair in (report.parameters, report.macs, seconds, report.accuracy)]
        agreement = "" if report.agreement is None else report.agreement
        start = (report.bound, len(report.pruned), len(report.changes), report.images)
        rows.append((*start, *(x for pair in pairs for x in pair), agreement))
    return (*header, "same_class"), rows
