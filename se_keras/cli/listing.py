"""`se-keras list`: lists the networks, or their published weights, without importing Keras."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
from collections.abc import Callable
from typing import Any

from se_keras.catalog import known_networks
from se_keras.cli.console import FittingTable, console, print_json
from se_keras.weights.published import RECORDS
from se_keras.weights.records import WeightsRecord


def run(options: argparse.Namespace) -> int:
    """Prints the networks, or the published weights, that match a pattern; fails if there are none."""
    if options.weights:
        return _list_weights(options)
    if options.sort:
        raise ValueError("--sort orders weights; add --weights.")
    networks = known_networks()
    names = fnmatch.filter(networks, options.pattern)
    if not names:
        raise ValueError(f"No network matches {options.pattern!r}. `se-keras list` shows all.")
    if options.json:
        print_json([{"model": name, **dataclasses.asdict(networks[name]), "weights": _weights(name)} for name in names])
        return 0
    table = FittingTable(
        "model", "network", "input", "classes", "params", "GMACs", "weights", numbers=slice(2, 6), optional=("network",)
    )
    for name in names:
        network = networks[name]
        tags = ", ".join(weights.partition(".")[2] for weights in _weights(name)) or "none"
        table.add_row(
            name,
            network.title,
            str(network.size),
            str(network.classes),
            f"{network.parameters / 1e6:.1f} M",
            f"{network.macs / 1e9:.3g}",
            tags,
        )
    console.print(table)
    return 0


def _weights(model: str) -> list[str]:
    return sorted(name for name, record in RECORDS.items() if record.model == model)


_ORDERS: dict[str, Callable[[WeightsRecord], Any]] = {
    "name": lambda record: record.identifier,
    # Percentages of different tasks are not comparable.
    "accuracy": lambda record: (record.dataset != WeightsRecord.dataset, record.dataset, -record.top1),
    "parameters": lambda record: record.parameters,
    "macs": lambda record: record.macs,
}


def _list_weights(options: argparse.Namespace) -> int:
    names = fnmatch.filter(RECORDS, options.pattern) or fnmatch.filter(RECORDS, f"{options.pattern}.*")
    if not names:
        raise ValueError(f"No weights match {options.pattern!r}. `se-keras list --weights` shows all.")
    records = sorted((RECORDS[name] for name in names), key=_ORDERS[options.sort or "name"])
    if options.json:
        print_json([dataclasses.asdict(record) for record in records])
        return 0
    table = FittingTable(
        "weights",
        "trained on",
        "top-1",
        "top-5",
        "size",
        "params",
        "GMACs",
        numbers=slice(2, None),
        optional=("size", "top-5"),
    )
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
