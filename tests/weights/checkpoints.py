"""Synthetic checkpoints with real names and shapes, and records of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from formula import fill

from se_keras.images.record import Preprocessing
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.weights.convert import expected_tensors
from se_keras.weights.records import Accuracy, HubFile, WeightsRecord

ANY_SIZE = (None, None, 3)


def synthetic(model: str, family: str, lineage: str | None = None, **options: Any) -> dict[str, np.ndarray]:
    """A checkpoint with the real names and shapes, its numbers by formula."""
    network = assemble(model, NETWORKS[model], Options(input_shape=ANY_SIZE, **options), lineage=lineage)
    return {name: fill(name, shape) for name, shape in expected_tensors(network, family).items()}


def record(**changes) -> WeightsRecord:
    """A record of SE-ResNet-18 in the legacy naming."""
    facts = {
        "model": "se_resnet18",
        "tag": "test_in1k",
        "family": "timm_legacy",
        "lineage": "legacy",
        "sources": (HubFile(repository="test/seresnet18"),),
        "preprocessing": Preprocessing(interpolation="bicubic"),
        "accuracy": (Accuracy(top1=70.0, top5=90.0, size=224, crop=0.875, measured_by="nobody"),),
        "parameters": 11_778_592,
        "macs": 1_814_160_384,
        "license": "none",
        "provenance": "Made by a formula.",
        "unverified": "nothing",
    }
    return WeightsRecord(**{**facts, **changes})
