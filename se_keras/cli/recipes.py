"""`se-keras train --recipes`: the recipes, with their sources and results, without importing Keras."""

from __future__ import annotations

import argparse
import dataclasses

from se_keras.catalog import known_recipes
from se_keras.cli.console import console, print_json

_SHOWN = ("name", "epochs", "source", "evidence")


def run(options: argparse.Namespace) -> int:
    """Prints the recipes."""
    recipes = [dataclasses.asdict(recipe) for recipe in known_recipes()]
    if options.json:
        print_json([{field: recipe[field] for field in _SHOWN} for recipe in recipes])
        return 0
    for recipe in recipes:
        console.print(f"{recipe['name']}: {recipe['epochs']} epochs, batches of {recipe['batch_size']}", style="bold")
        console.print(f"  source: {recipe['source']}")
        console.print(f"  evidence: {recipe['evidence']}")
    return 0
