"""`se-keras info MODEL.TAG`: the record of published weights, without importing Keras."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator

from se_keras.cli.console import console, print_json
from se_keras.weights.records import WeightsRecord
from se_keras.weights.timm_names import record_named


def run(options: argparse.Namespace) -> int:
    """Prints a record, one fact per line."""
    if options.plain or options.size:
        raise ValueError("--plain and --size build a network; published weights are only described.")
    record = record_named(options.model)
    if record is None:
        raise ValueError(f"There is no record of {options.model!r}. `se-keras list --weights` shows all.")
    if options.json:
        print_json(dataclasses.asdict(record))
        return 0
    console.print(record.identifier, style="bold")
    facts = list(_facts(record))
    width = max(len(name) for name, _ in facts)
    for name, fact in facts:
        console.print(f"{name:{width}}  {fact}")
    return 0


def _facts(record: WeightsRecord) -> Iterator[tuple[str, str]]:
    excitation = ", without SE" if record.plain else f", reduction {record.reduction}" if record.reduction else ""
    yield "structure", f"{record.model}, lineage {record.lineage or 'official'}{excitation}"
    classes = {None: "", 0: ", no classifier"}.get(record.classes, f", {record.classes or 0:,} classes")
    yield "trained on", f"{record.dataset}{classes}"
    for row in record.accuracy:
        at = f"{row.size} px, crop {row.crop:g}"
        yield f"accuracy at {at}", f"top-1 {row.top1:.2f} %, top-5 {row.top5:.2f} % ({row.measured_by})"
    yield "size", f"{record.parameters:,} parameters, {record.macs / 1e9:.3g} GMACs"
    if record.preprocessing:
        images = record.preprocessing
        yield "images", f"{images.size} px, crop {images.crop:g}, {images.interpolation}"
    yield from (("source", source.where) for source in record.sources)
    yield "license", record.license
    yield "provenance", record.provenance
    yield "not verified", record.unverified
