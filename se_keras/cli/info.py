"""`se-keras info`: what a network consists of, or what is known of published weights."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from rich.table import Table

from se_keras.cli.console import console, empty_table, load_file
from se_keras.models.info import ModelInfo, model_info
from se_keras.models.registry import create_model
from se_keras.weights.published import RECORDS
from se_keras.weights.records import BundledFile, HubFile, WebFile, WeightsRecord


def run(options: argparse.Namespace) -> int:
    """Prints a network's parameters and multiply-adds by stage, or what is known of published weights."""
    if options.model in RECORDS:
        return _print_record(RECORDS[options.model], options)
    if options.model.endswith(".keras"):
        if options.plain:
            raise ValueError("--plain builds a network without SE; it cannot be applied to a .keras file.")
        model = load_file(options.model)
        shape = (options.size, options.size, model.input_shape[-1]) if options.size else None
    else:
        shape = (options.size, options.size, 3) if options.size else None
        plain: dict[str, Any] = {"se": None} if options.plain else {}
        model = create_model(options.model, input_shape=shape, **plain)
    info = model_info(model, shape)
    if options.json:
        print(json.dumps(info.as_dict(), indent=2))
    else:
        console.print(_info_table(info))
    return 0


def _print_record(record: WeightsRecord, options: argparse.Namespace) -> int:
    if options.plain or options.size:
        raise ValueError("--plain and --size build a network; published weights are only described.")
    if options.json:
        print(json.dumps(dataclasses.asdict(record), indent=2))
        return 0
    prepared = record.preprocessing
    table = Table(show_header=False, title=record.identifier, title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(overflow="fold")
    excitation = ", without SE" if record.plain else f", reduction {record.reduction}" if record.reduction else ""
    table.add_row("structure", f"{record.model}, lineage {record.lineage or 'official'}{excitation}")
    table.add_row("trained on", record.dataset)
    for row in record.accuracy:
        at = f"{row.size} px, crop {row.crop:g}"
        table.add_row(f"accuracy at {at}", f"top-1 {row.top1:.2f} %, top-5 {row.top5:.2f} % ({row.measured_by})")
    table.add_row("size", f"{record.parameters:,} parameters, {record.macs / 1e9:.3g} GMACs")
    table.add_row("images", f"{prepared.size} px, crop {prepared.crop:g}, {prepared.interpolation}")
    for source in record.sources:
        table.add_row("source", _where(source))
    table.add_row("licence", record.licence)
    table.add_row("provenance", record.provenance)
    table.add_row("not verified", record.unverified)
    console.print(table)
    return 0


def _where(source: BundledFile | HubFile | WebFile) -> str:
    if isinstance(source, BundledFile):
        return f"installed with the package: se_keras/data/{source.file}"
    return source.url if isinstance(source, WebFile) else f"hub: {source.repository}/{source.file}"


def _info_table(info: ModelInfo) -> Table:
    table = empty_table("stage", "parameters", "trainable", "MMACs", "of them SE", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    size = "x".join(map(str, info.input_shape))
    table.title = f"{info.name}: input {size}, {info.se_blocks} SE blocks"
    for name, cost in info.stages.items():
        share = cost.macs / max(info.total.macs, 1)
        table.add_row(
            name,
            f"{cost.parameters:,}",
            f"{cost.trainable:,}",
            f"{cost.macs / 1e6:,.2f}",
            f"{cost.se_macs / 1e6:,.3f}",
            f"{share:.1%}",
        )
    table.add_section()
    total = info.total
    table.add_row(
        "total",
        f"{total.parameters:,}",
        f"{total.trainable:,}",
        f"{total.macs / 1e6:,.2f}",
        f"{total.se_macs / 1e6:,.3f}",
        "",
    )
    return table
