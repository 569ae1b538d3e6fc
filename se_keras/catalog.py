"""What is known of all networks and recipes without building any of them, or importing Keras."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """What a network is, as its builder makes it without arguments.

    Args:
        title: Name as written, e.g. "SE-ResNet-50".
        size: Height and width of the input in pixels.
        classes: Number of classes.
        parameters: Trainable parameters.
        macs: Multiply-adds per image.
    """

    title: str
    size: int
    classes: int
    parameters: int
    macs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeFacts:
    """What a training recipe says of itself.

    Args:
        name: Its key in `training.RECIPES`.
        epochs: Passes over the training images.
        batch_size: Images per step.
        source: Where the recipe is from.
        evidence: What a run of it in this repository gave.
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


def known_recipes() -> list[RecipeFacts]:
    """Returns the facts of every recipe, in the order of `training.RECIPES`."""
    return [RecipeFacts(**facts) for facts in _read()["recipes"]]
