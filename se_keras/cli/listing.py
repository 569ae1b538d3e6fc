"""`se-keras list`: lists the networks, or their published weights, without importing Keras."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from se_keras.choice import Choice, Limits, chosen_networks, chosen_weights, default_sort, license_of
from se_keras.cli.console import FittingTable, console, print_json
from se_keras.weights.records import WeightsRecord


def run(options: argparse.Namespace) -> int:
    """Prints the networks, or the published weights, that match a pattern and meet the limits; fails without any."""
    limits = Limits(
        max_parameters=options.max_params,
        max_macs=options.max_macs,
        min_accuracy=options.min_accuracy,
        license=options.license,
    )
    choose, show = (chosen_weights, _show_weights) if options.weights else (chosen_networks, _show_networks)
    found: Sequence = choose(options.pattern, limits, options.sort or default_sort(limits))
    if not found:
        raise ValueError(_nothing(options, limits))
    show(found, options)
    return 0


def _nothing(options: argparse.Namespace, limits: Limits) -> str:
    what, line = ("weights match", "list --weights") if options.weights else ("network matches", "list")
    within = " within the other limits" if limits != Limits() else ""
    return f"No {what} {options.pattern!r}{within}. `se-keras {line}` shows all."


def _show_networks(choices: Sequence[Choice], options: argparse.Namespace) -> None:
    if options.json:
        print_json([_as_json(choice) for choice in choices])
        return
    table = FittingTable(
        "model",
        "network",
        "input",
        "classes",
        "params",
        "GMACs",
        "top-1",
        "weights",
        numbers=slice(2, 7),
        optional=("network", "classes"),
    )
    for choice in choices:
        facts = choice.facts
        table.add_row(
            choice.name,
            facts.title,
            str(facts.size),
            str(facts.classes),
            _millions(facts.parameters),
            _billions(facts.macs),
            f"{choice.top1:.2f}" if choice.top1 else "",
            ", ".join(record.tag for record in choice.weights) or "none",
        )
    console.print(table)


def _as_json(choice: Choice) -> dict:
    weights = [record.identifier for record in choice.weights]
    return {"model": choice.name, **dataclasses.asdict(choice.facts), "top1": choice.top1, "weights": weights}


def _show_weights(records: Sequence[WeightsRecord], options: argparse.Namespace) -> None:
    if options.json:
        print_json([dataclasses.asdict(record) for record in records])
        return
    table = FittingTable(
        "weights",
        "trained on",
        "top-1",
        "top-5",
        "size",
        "params",
        "GMACs",
        "license",
        numbers=slice(2, 7),
        optional=("license", "size", "top-5"),
    )
    for record in records:
        best = record.accuracy[0]
        table.add_row(
            record.identifier,
            record.dataset,
            f"{best.top1:.2f}",
            f"{best.top5:.2f}",
            str(best.size),
            _millions(record.parameters),
            _billions(record.macs),
            license_of(record),
        )
    console.print(table)
    console.print("Accuracy in percent at the training size, as its source states it; `se-keras info NAME` says more.")


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _billions(count: int) -> str:
    return f"{count / 1e9:.3g}"
