"""`se-keras info MODEL.TAG`: what is known of published weights, without importing Keras."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator

from se_keras.cli.console import console, print_json
from se_keras.weights.published import RECORDS
from se_keras.weights.records import BundledFile, HubFile, WebFile, WeightsRecord


def run(options: argparse.Namespace) -> int:
    """Prints a record, a fact per line."""
    if options.plain or options.size:
        raise ValueError("--plain and --size build a network; published weights are only described.")
    record = RECORDS[options.model]
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
    prepared = record.preprocessing
    excitation = ", without SE" if record.plain else f", reduction {record.reduction}" if record.reduction else ""
    yield "structure", f"{record.model}, lineage {record.lineage or 'official'}{excitation}"
    yield "trained on", record.dataset
    for row in record.accuracy:
        at = f"{row.size} px, crop {row.crop:g}"
        yield f"accuracy at {at}", f"top-1 {row.top1:.2f} %, top-5 {row.top5:.2f} % ({row.measured_by})"
    yield "size", f"{record.parameters:,} parameters, {record.macs / 1e9:.3g} GMACs"
    yield "images", f"{prepared.size} px, crop {prepared.crop:g}, {prepared.interpolation}"
    yield from (("source", _where(source)) for source in record.sources)
    yield "license", record.license
    yield "provenance", record.provenance
    yield "not verified", record.unverified


def _where(source: BundledFile | HubFile | WebFile) -> str:
    if isinstance(source, BundledFile):
        return f"installed with the package: se_keras/data/{source.file}"
    return source.url if isinstance(source, WebFile) else f"hub: {source.repository}/{source.file}"
