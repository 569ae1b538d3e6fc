"""`se-keras insert`: insertion of SE blocks into a saved model."""

from __future__ import annotations

import argparse
from typing import Any

import keras

from se_keras.blocks.excitation import SEConfig
from se_keras.cli.console import FittingTable, console, print_json
from se_keras.cli.models import load
from se_keras.files import check_targets, kind_of, replacing
from se_keras.surgery.insert import insert_squeeze_excite
from se_keras.surgery.positions import find_positions


def run(options: argparse.Namespace) -> int:
    """Prints the positions of the blocks and, unless only these were requested, writes the model with the blocks."""
    if not options.list and not options.to:
        raise ValueError("Name the file to write with --to FILE.keras, or pass --list to only list the positions.")
    if options.to and not options.to.endswith(".keras"):
        raise ValueError(f"--to must end in .keras; received {options.to!r}.")
    if options.to:
        check_targets({options.to: kind_of(options.to)}, overwrite=options.overwrite)
    model = load(options.model)
    positions = find_positions(model, options.where)
    rows = [{"layer": p.layer, "reason": p.reason, "obstacle": p.obstacle} for p in positions]
    if not options.json:
        table = FittingTable("after layer", "reason", "skipped because")
        for position in positions:
            table.add_row(position.layer, position.reason, position.obstacle)
        console.print(table)
    if options.to and all(position.obstacle for position in positions):
        raise ValueError(
            f"{options.model!r} has no position for a block, so nothing was written"
            f"{' (the table says why)' if positions and not options.json else ''}. Name layers with --where REGEX."
        )
    written = _write(model, options) if options.to else {}
    if options.json:
        print_json({"positions": rows, **written})
    elif options.to:
        blocks = sum(not position.obstacle for position in positions)
        console.print(
            f"{options.to}: {blocks} blocks, {written['parameters_added']:,} parameters added to "
            f"{written['parameters_before']:,}; same outputs"
        )
    return 0


def _write(model: keras.Model, options: argparse.Namespace) -> dict[str, Any]:
    """Writes the model with SE blocks, and returns the file and the numbers of parameters."""
    reduction: dict[str, Any] = {"reduction": options.reduction} if options.reduction else {}
    se = SEConfig(gate_init="identity", **reduction)
    result = insert_squeeze_excite(model, options.where, se=se, freeze_base=options.freeze_base)
    with replacing(options.to, overwrite=options.overwrite) as temporary:
        result.save(temporary)
    before = model.count_params()
    return {"file": options.to, "parameters_before": before, "parameters_added": result.count_params() - before}
