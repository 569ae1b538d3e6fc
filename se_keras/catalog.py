"""Facts about all networks, builders, and recipes, read without building any of them or importing Keras."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """The facts about a network, as its builder creates it without arguments.

    Args:
        title: Name as written, such as "SE-ResNet-50".
        size: Height and width of the input in pixels.
        classes: Number of classes.
        parameters: Number of trainable parameters.
        macs: Multiply-adds per image.
    """

    title: str
    size: int
    classes: int
    parameters: int
    macs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeFacts:
    """The facts about a training recipe, as it states them.

    Args:
        name: Its key in `training.RECIPES`.
        epochs: Number of passes over the training images.
        batch_size: Number of images per step.
        source: Source of the recipe.
        evidence: The result of a run with it in this repository.
    """

    name: str
    epochs: int
    batch_size: int
    source: str
    evidence: str


@functools.cache
def _read() -> dict:
    return json.loads(importlib.resources.files("se_keras").joinpath("data/catalog.json").read_text("utf-8"))


def known_networks() -> dict[str, NetworkFacts]:
    """Returns the facts of every network by its registry name, sorted."""
    return {name: NetworkFacts(**facts) for name, facts in _read()["networks"].items()}


def known_builders() -> dict[str, str]:
    """Returns the registry name of the network that each public builder builds, by the builder's name."""
    return _read()["builders"]


def known_recipes() -> list[RecipeFacts]:
    """Returns the facts of every recipe, in the order of `training.RECIPES`."""
    return [RecipeFacts(**facts) for facts in _read()["recipes"]]
