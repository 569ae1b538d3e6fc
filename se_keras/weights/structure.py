"""Fingerprints of what a network computes with its weights, beyond their shapes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from se_keras.errors import WeightsMismatchError
from se_keras.weights.convert import variables_by_name

_STRUCTURAL = ("strides", "padding", "pool_size", "groups", "squeeze", "gate_activation", "activation", "gate_init")
_CLASSIFIER_BEGINS = "pooled_map"  # of networks with a convolution between the pooling and the logits

LINEAGES = {
    "19bd54937f752c8a": "legacy",  # se_resnet18
    "fc66c44d99034f31": "legacy",  # se_resnet34
    "ed98d8bd537bdba3": "timm",  # se_resnet18
    "04a9e51c325c8a67": "timm",  # se_resnet34
    "d48068982a6b8504": "timm",  # se_resnet50
    "e4987766f2eca736": "timm",  # se_resnet101
    "632d12cd0251aaa5": "timm",  # se_resnet152
    "b607409a101106f2": "timm",  # se_resnext26
    "bc66913f0b3fb6a2": "timm",  # se_resnext50
    "12ab891b052c0a3b": "timm",  # se_resnext101, se_resnext101_32x8d
    "813af35134944c74": "timm",  # se_resnext101_64x4d
    "ebfc032bc1277d8e": "timm",  # senet154
}
"""The lineage of each fingerprint other than that of a network's own structure, for files written by this package."""


def fingerprint_of(model: keras.Model) -> str:
    """Returns a short fingerprint of what a model computes with its weights, beyond their shapes.

    Two lineages of a network have the same variables, but their strides are in different places: the
    weights of one load into the other without an error, and the outputs are wrong. The classifier, the
    input size, and the preprocessing of the first layers are ignored.

    Args:
        model: A functional model.

    Returns:
        16 hexadecimal digits.
    """
    return fingerprint_of_layers((layer.name, type(layer).__name__, layer.get_config()) for layer in model.layers)


def fingerprint_of_layers(layers: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    """Returns the fingerprint of a model from its configuration alone.

    Args:
        layers: Name, class name, and configuration of each layer.

    Returns:
        16 hexadecimal digits, the same as `fingerprint_of` returns for the model itself.
    """
    rows = []
    for name, kind, config in layers:
        if name == _CLASSIFIER_BEGINS:
            break
        facts = {key: config[key] for key in _STRUCTURAL if key in config}
        if facts and kind != "Dense" and name != "predictions":
            rows.append([name, kind, facts])
    text = json.dumps(sorted(rows, key=lambda row: row[0]), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_HINTS = {
    (True, False): "the weights have SE blocks and the model has none: leave out `se=None`.",
    (False, True): "the weights belong to a plain network: pass se=None.",
}


def check_structure(model: keras.Model, stated: str | None, names: Iterable[str], *, source: str) -> None:
    """Refuses weights of a structure other than the model's, although every shape may fit.

    Args:
        model: The model.
        stated: The fingerprint that the file of the weights states. None if it states none.
        names: Names of the weights, "layer/variable".
        source: Where the weights come from, for the message.

    Raises:
        WeightsMismatchError: The fingerprints differ.
    """
    if stated in (None, fingerprint_of(model)):
        return
    theirs, ours = (
        any(name.endswith("/reduce_kernel") for name in given) for given in (names, variables_by_name(model))
    )
    title = f"{model.name} <- {source}: made for a network of another structure (layers, strides, padding, or gates)"
    hint = _HINTS.get((theirs, ours), "build the network, with the `se`, that the weights were saved from.")
    raise WeightsMismatchError(title, {}, {}, hint)
