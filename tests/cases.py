"""Which networks a test runs over: small ones of most skeletons in the quick suite, all of them in the slow one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest

from se_keras.models import inverted_networks, regnet
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

DEEPEST = ("se_inception_resnet_v2", "se_preresnet164")

# What the quick suite can afford to build, train and call again and again.
QUICK = ("se_shufflenet", "se_resnet20")

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
# timm's networks of after the paper, and of these one for each rule for widths, depths, units, and stems. The others
# differ in numbers only, and are tested with SE_KERAS_ALL_NETWORKS=1 (`make test-all`).
NEWER = (
    *inverted_networks.NETWORKS,
    *regnet.NETWORKS,
    *(name for name in NETWORKS if name.startswith(("resnetrs", "seresnextaa"))),
)
NEWER_QUICK = ("mobilenetv3_small_050", "regnety_002", "tinynet_e")
NEWER_VARIANTS = (
    "efficientnet_b1",
    "efficientnetv2_rw_m",
    "fbnetv3_b",
    "lcnet_075",
    "mobilenetv3_large_150d",
    "regnety_008",
    "regnety_008_tv",
    "resnetrs50",
    "semnasnet_075",
    "seresnextaa101d_32x8d",
    "tf_efficientnet_b2",
    "tf_efficientnetv2_b3",
    "tf_mobilenetv3_large_075",
    "tinynet_c",
)
ALL = bool(os.environ.get("SE_KERAS_ALL_NETWORKS"))
NEWER_TESTED = NEWER if ALL else (*NEWER_QUICK, *NEWER_VARIANTS)

PAPER = tuple(name for name in NETWORKS if name not in NEWER)
# Of these, networks that differ from another one only in depth, width, or the number of groups.
ONLY_NUMBERS_DIFFER = (
    "se_resnet34",
    "se_resnet101",
    "se_resnet152",
    "se_resnext26",
    "se_resnext101",
    "se_resnext101_64x4d",
    "se_resnext101_32x8d",
    "se_resnext101d_32x8d",
    "se_resnet32",
    "se_resnet44",
    "se_resnet56",
    "se_resnet110",
    "se_preresnet110",
)
PAPER_TESTED = PAPER if ALL else tuple(name for name in PAPER if name not in ONLY_NUMBERS_DIFFER)
# Where a network is computed, not only built: without the deepest, whose units others have.
SKELETONS = PAPER if ALL else tuple(name for name in ONE_OF_EACH if name not in DEEPEST)

CIFAR = tuple(name for name, network in NETWORKS.items() if network.classes == 10)


def networks(names: Iterable[str] = SKELETONS, quick: Iterable[str] = QUICK) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`: the names, those that are not in `quick` marked slow."""
    quick = set(quick)
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def smallest_size(name: str) -> int:
    """A height and width that the network takes, as small as its layers allow."""
    return {10: 16}.get(NETWORKS[name].classes, NETWORKS[name].min_size)
