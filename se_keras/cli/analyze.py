"""`se-keras analyze`: statistics and figures of the gates of a network on labeled images."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from se_keras.analysis.drawing import figure_targets
from se_keras.analysis.gates import Gates, collect_gates
from se_keras.analysis.plots import GATE_FIGURES, plot_gates, plot_image, plot_pruning
from se_keras.class_names_file import caption
from se_keras.cli.console import FittingTable, console, print_json
from se_keras.cli.images import open_images
from se_keras.cli.models import load
from se_keras.files import check_targets, kind_of
from se_keras.images.record import Preprocessing
from se_keras.models.info import model_info
from se_keras.preprocessing import preprocessing_of
from se_keras.spacing import evenly
from se_keras.surgery.prune import PruningReport, pruning_curve
from se_keras.training.batches import fitted
from se_keras.training.sources import ImageSource

BATCH_SIZE = 128


class _Batches(keras.utils.PyDataset):
    """Preprocessed images and their integer labels, in batches."""

    def __init__(self, images: ImageSource, preprocessing: Preprocessing, most: int | None) -> None:
        super().__init__()
        self.images, self.preprocessing = images, preprocessing
        # Spread over all classes, because a folder lists one after the other.
        self.indices = evenly(len(images), most or len(images))

    def __len__(self) -> int:
        return math.ceil(len(self.indices) / BATCH_SIZE)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.indices[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        return np.stack([self.image(i) for i in chosen]), self.images.labels[chosen]

    def image(self, index: int) -> np.ndarray:
        """Returns a preprocessed image by its index in the source."""
        return fitted(self.images[int(index)], self.preprocessing)


def run(options: argparse.Namespace) -> int:
    """Collects the gates, prints one line per block, and writes the figures with their data."""
    folder = pathlib.Path(options.out)
    names = [*GATE_FIGURES, "image", *(["pruning"] if options.prune else [])]
    figures = figure_targets([folder / f"{name}.png" for name in names])
    check_targets({folder / "gates.npz": kind_of("gates.npz"), **figures}, overwrite=options.overwrite)
    model = load(options.model)
    data = open_images(options)
    images = data.train if options.split == "train" else data.validation
    batches = _Batches(images, preprocessing_of(model), options.images)
    gates = collect_gates(
        model,
        batches,
        class_names=data.train.class_names,
        title=f"{data.name}, {options.split}",
        samples=1,
    )
    files = plot_gates(gates, folder, overwrite=options.overwrite)
    image = batches.image(batches.indices[gates.sample_indices[0]])
    title = caption(gates.class_names[int(gates.sample_labels[0])])
    files += plot_image(model, image, gates, folder / "image.png", title=title, overwrite=options.overwrite)
    gates.save(folder / "gates.npz", overwrite=options.overwrite)
    reports: tuple[PruningReport, ...] = ()
    if options.prune:
        reports = pruning_curve(model, batches, count_macs=lambda network: model_info(network).total.macs)
        files += plot_pruning(reports, folder / "pruning.png", title=gates.title, overwrite=options.overwrite)
    rows = _rows(gates)
    written = ["gates.npz", *sorted(file.name for file in files)]
    if options.json:
        pruning = {"pruning": [dataclasses.asdict(report) for report in reports]} if options.prune else {}
        print_json({"blocks": rows, "folder": os.fspath(folder), "files": written, **pruning})
        return 0
    console.print(_table(rows))
    if reports:
        console.print("")
        console.print(_pruning_table(reports))
    console.print(f"{folder}: {', '.join(written)}")
    return 0


def _rows(gates: Gates) -> list[dict[str, Any]]:
    return [
        {
            "block": block.name,
            "mean": float(block.total_mean.mean()),
            "class_specificity": float(block.class_specificity),
            "above_0.99": float(block.total_high_share.mean()),
            "below_0.01": float(block.total_low_share.mean()),
        }
        for block in gates.blocks
    ]


def _pruning_table(reports: Sequence[PruningReport]) -> FittingTable:
    table = FittingTable("bound", "pruned blocks", "parameters", "accuracy", "same class", numbers=slice(0, None))
    table.title = "What constant gates would save and cost"
    before = _percent(reports[0].accuracy and reports[0].accuracy[0])
    table.add_row("none", "", f"{reports[0].parameters[0]:,}", before, "")
    for report in reports:
        pruned = f"{len(report.pruned)} of {len(report.changes)}"
        accuracy = _percent(report.accuracy and report.accuracy[1])
        table.add_row(f"{report.bound:g}", pruned, f"{report.parameters[1]:,}", accuracy, _percent(report.agreement))
    return table


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.2%}"


def _table(rows: list[dict[str, Any]]) -> FittingTable:
    table = FittingTable(
        "block", "mean gate", "variance between classes", "above 0.99", "below 0.01", numbers=slice(1, None)
    )
    for row in rows:
        shares = (row["class_specificity"], row["above_0.99"], row["below_0.01"])
        table.add_row(str(row["block"]), f"{row['mean']:.3f}", *(f"{share:.1%}" for share in shares))
    return table
