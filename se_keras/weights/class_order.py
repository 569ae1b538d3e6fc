"""The two orders of ImageNet's classes."""

from __future__ import annotations

import importlib.resources

import numpy as np


def sorted_from_devkit() -> np.ndarray:
    """Returns the position of each class, in sorted-WNID order, in the order of the ILSVRC development kit.

    The authors' Caffe networks output classes in the kit's order (ILSVRC2012_ID - 1), all others
    in sorted order. Source: albanie/mcnSENets, misc/label_map.txt.

    Returns:
        Integer array of shape (1000,): `in_devkit_order[..., sorted_from_devkit()]` is in sorted order.
    """
    text = importlib.resources.files("se_keras").joinpath("data/devkit_class_order.txt").read_text("ascii")
    return np.array(text.split(), "int64")
