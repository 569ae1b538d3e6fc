"""`se-keras benchmark`: exported files and models timed side by side."""

from __future__ import annotations

import argparse

from se_keras import export
from se_keras.cli.console import FittingTable, console, print_json
from se_keras.cli.models import is_path
from se_keras.export.runtime import RUNTIMES
from se_keras.models.registry import create_model

_ENDINGS = (".tflite", ".onnx", ".xml", ".keras")


def run(options: argparse.Namespace) -> int:
    """Times exported files and models side by side and prints a table."""
    # Descriptions are next to the exports, so `out/*` also matches them.
    names = [name for name in options.models if not name.endswith((".json", ".bin"))]
    contestants = {name: name if is_path(name) or name.endswith(_ENDINGS) else create_model(name) for name in names}
    tflite_files = [name for name in contestants if name.endswith(".tflite")]
    rows = export.benchmark(
        contestants,
        threads=options.threads,
        batch_sizes=options.batch_sizes,
        repeats=options.repeats,
        warmups=options.warmups,
        gpu=tflite_files if options.gpu else (),
    )
    if options.json:
        print_json([row.to_dict() for row in rows])
        return 0
    for setting in dict.fromkeys((row.speed.threads, row.speed.batch) for row in rows):
        console.print(_benchmark_table([row for row in rows if (row.speed.threads, row.speed.batch) == setting]))
    console.print(
        "Spread: the middle half of the runs, as a share of the median. MB: added to the idle runtime's memory."
    )
    return 0


def _benchmark_table(rows: list[export.Measurement]) -> FittingTable:
    table = FittingTable(
        "model", "runtime", "median ms", "least ms", "spread", "images/s", "MB", numbers=slice(2, None)
    )
    threads, batch = rows[0].speed.threads, rows[0].speed.batch
    table.title = f"{threads} thread{'s' if threads > 1 else ''}, batch {batch}"
    for row in rows:
        speed = row.speed
        table.add_row(
            row.name,
            RUNTIMES[speed.runtime],
            f"{1e3 * speed.median:.2f}",
            f"{1e3 * speed.least:.2f}",
            f"{(speed.quartiles[1] - speed.quartiles[0]) / speed.median:.0%}",
            f"{row.images_per_second:,.0f}",
            f"{speed.peak_memory / 1e6:.0f}",
        )
    return table
