"""`se-keras list`: the networks, or their published weights."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
from collections.abc import Callable
from typing import Any

from se_keras.cli.console import console, empty_table
from se_keras.models.registry import NETWORKS, list_models, list_weights
from se_keras.weights.published import RECORDS
from se_keras.weights.records import WeightsRecord


def run(options: argparse.Namespace) -> int:
    """Prints the networks, or the published weights, that match a pattern; fails if there are none."""
    if options.weights:
        return _list_weights(options)
    if options.sort:
        raise ValueError("--sort orders weights; add --weights.")
    names = list_models(options.pattern)
    if not names:
        raise ValueError(f"No network matches {options.pattern!r}. `se-keras list` shows all.")
    rows = [{"model": name, "title": NETWORKS[name].title, "weights": list_weights(name)} for name in names]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = empty_table("model", "network", "input", "classes", "weights")
    for name in names:
        network = NETWORKS[name]
        size = f"{network.preprocessing.size}x{network.preprocessing.size}"
        tags = ", ".join(weights.partition(".")[2] for weights in list_weights(name)) or "none"
        table.add_row(name, network.title, size, str(network.classes), tags)
    console.print(table)
    return 0


_ORDERS: dict[str, Callable[[WeightsRecord], Any]] = {
    "name": lambda record: record.identifier,
    "accuracy": lambda record: -record.top1,
    "parameters": lambda record: record.parameters,
    "macs": lambda record: record.macs,
}


def _list_weights(options: argparse.Namespace) -> int:
    names = fnmatch.filter(RECORDS, options.pattern) or fnmatch.filter(RECORDS, f"{options.pattern}.*")
    if not names:
        raise ValueError(f"No weights match {options.pattern!r}. `se-keras list --weights` shows all.")
    records = sorted((RECORDS[name] for name in names), key=_ORDERS[options.sort or "name"])
    if options.json:
        print(json.dumps([dataclasses.asdict(record) for record in records], indent=2))
        return 0
    table = empty_table("weights", "trained on", "top-1", "top-5", "size", "parameters", "GMACs")
    table.columns[0].no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for record in records:
        best = record.accuracy[0]
        table.add_row(
            record.identifier,
            record.dataset,
            f"{best.top1:.2f}",
            f"{best.top5:.2f}",
            str(best.size),
            f"{record.parameters / 1e6:.1f} M",
            f"{record.macs / 1e9:.3g}",
        )
    console.print(table)
    console.print("Accuracy in percent at the training size, as its source states it; `se-keras info NAME` says more.")
    return 0
