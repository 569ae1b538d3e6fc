"""Which networks a test runs over: small ones of most skeletons in the quick suite, all of them in the slow one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from se_keras.models.registry import NETWORKS

# One network of each skeleton, and of each unit of the residual skeletons; the smallest of its kind.
ONE_OF_EACH = (
    "se_resnet18",
    "se_resnet50",
    "se_resnext50",
    "se_bn_inception",
    "se_inception_v3",
    "se_inception_resnet_v2",
    "se_vgg16",
    "se_mobilenet",
    "se_shufflenet",
    "se_resnet20",
    "se_preresnet164",
    "se_wide_resnet16_8",
)

# What the quick suite can afford to build, train and call again and again.
QUICK = ("se_resnet50", "se_bn_inception", "se_mobilenet", "se_shufflenet", "se_resnet20")

# One network of each kind of residual unit; the others differ from these in depth only.
RESIDUAL = (
    "se_resnet20",
    "se_wide_resnet16_8",
    "se_preresnet164",
    "se_resnet18",
    "se_resnet50",
    "se_resnext50",
    "senet154",
    "se_inception_resnet_v2",
)
CIFAR = tuple(name for name, network in NETWORKS.items() if network.classes == 10)


def networks(names: Iterable[str] = NETWORKS, quick: Iterable[str] = QUICK) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`: the names, those that are not in `quick` marked slow."""
    quick = set(quick)
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def smallest_size(name: str) -> int:
    """A height and width that the network takes, as small as its layers allow."""
    return {10: 16}.get(NETWORKS[name].classes, NETWORKS[name].min_size)
