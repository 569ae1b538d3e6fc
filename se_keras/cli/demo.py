"""`se-keras demo`: classifying, adapting, exporting, and comparing on bundled images."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import keras
from rich.progress import Progress

from se_keras.cli.console import FittingTable, console, print_json, progress_bars
from se_keras.demo import DemoResult, run_demo


def run(options: argparse.Namespace) -> int:
    """Runs the demo and prints its summary."""
    announce: Callable[[str], None] = (lambda line: None) if options.json else console.print
    with progress_bars() as progress:
        result = run_demo(
            options.output,
            epochs=options.epochs,
            announce=announce,
            callbacks=lambda name, steps: [_StepBar(progress, name, steps)],
        )
    if options.json:
        print_json(_demo_dict(result))
    else:
        _print_demo(result)
    return 0


class _StepBar(keras.callbacks.Callback):
    """A callback that advances a progress bar with each training step."""

    def __init__(self, progress: Progress, name: str, steps: int) -> None:
        super().__init__()
        self.bar = progress
        self.task = progress.add_task(name, total=steps)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.bar.advance(self.task)


def _print_demo(result: DemoResult) -> None:
    networks = FittingTable("bundled network", "trainable parameters", "accuracy", numbers=slice(1, None))
    for name, accuracy in result.accuracy.items():
        networks.add_row(name, f"{result.parameters[name]:,}", f"{accuracy:.1%}")
    ways = FittingTable(f"{result.images} images of other classes", "training", "accuracy", numbers=slice(1, None))
    for name, accuracy in result.adapted.items():
        ways.add_row(name, f"{result.seconds[name]:.0f} s", f"{accuracy:.1%}")
    exports = FittingTable(
        "saved as", "size", "one image", "accuracy", "same class", "max. error", numbers=slice(1, None)
    )
    for entry in result.exports:
        exports.add_row(
            entry.path.name,
            f"{entry.size / 1e6:.2f} MB",
            f"{entry.latency * 1e3:.2f} ms",
            f"{entry.accuracy:.1%}",
            f"{entry.agreement:.1%}",
            f"{entry.difference:.1e}",
        )
    for table in (networks, ways, exports):
        console.print(table)
    console.print(
        f"All files, and test images with their predictions ({result.picture.name}): {result.picture.parent}/"
    )


def _demo_dict(result: DemoResult) -> dict[str, Any]:
    return {
        **vars(result),
        "exports": [{**vars(entry), "path": str(entry.path)} for entry in result.exports],
        "picture": str(result.picture),
    }
