"""Writes se_keras/data/catalog.json, with what `se_keras` and its commands know without importing Keras.

python pretrained/make_catalog.py            # --check only reports whether it is current
"""

from __future__ import annotations

import inspect
import json
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FILE = pathlib.Path(__file__).parents[1] / "se_keras" / "data" / "catalog.json"


def network_facts(identifier: str) -> dict[str, Any]:
    """Returns the facts in the table of variants about a network."""
    from se_keras.models.registry import NETWORKS

    network = NETWORKS[identifier]
    return {"title": network.title, "size": network.preprocessing.size, "classes": network.classes}


def network_cost(identifier: str) -> dict[str, int]:
    """Returns the cost of a network at its default input size: trainable parameters and multiply-adds per image."""
    import keras

    import se_keras

    total = se_keras.model_info(se_keras.create_model(identifier)).total
    keras.utils.clear_session()
    return {"parameters": total.trainable, "macs": total.macs}


def builder_names() -> dict[str, str]:
    """Returns the registry name of the network that each public builder builds, in the order of their module."""
    from se_keras.models import builders

    public = {name: builder for name, builder in vars(builders).items() if not name.startswith("_")}
    return {name: inspect.signature(builder).parameters["name"].default for name, builder in public.items()}


def recipe_facts() -> list[dict[str, Any]]:
    """Returns the fields of the recipes that are listed."""
    from se_keras.training.recipes import RECIPES

    fields = ("name", "epochs", "batch_size", "source", "evidence")
    return [{field: getattr(recipe, field) for field in fields} for recipe in RECIPES.values()]


def catalog() -> dict[str, Any]:
    """Returns the complete content of the file."""
    from se_keras.models.registry import NETWORKS

    networks = {name: network_facts(name) | network_cost(name) for name in sorted(NETWORKS)}
    return {"builders": builder_names(), "networks": networks, "recipes": recipe_facts()}


def main() -> int:
    """Writes the file, or checks whether it is current."""
    text = json.dumps(catalog(), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        current = FILE.is_file() and FILE.read_text("utf-8") == text
        print(f"{FILE} is {'current' if current else 'out of date: run pretrained/make_catalog.py'}")
        return 0 if current else 1
    FILE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
