"""The union of the tables of variants, and the builders by name."""

from __future__ import annotations

import fnmatch
import os
from typing import Any

import keras

from se_keras.errors import one_of
from se_keras.models import inception, mobile, resnet, vgg
from se_keras.models.checkpoints import build
from se_keras.models.network import Network, Options
from se_keras.preprocessing import Preprocessing
from se_keras.weights.published import RECORDS


def _union(*tables: dict[str, Network]) -> dict[str, Network]:
    networks: dict[str, Network] = {}
    for table in tables:
        repeated = networks.keys() & table.keys()
        if repeated:
            raise ValueError(f"Two tables name the same network: {sorted(repeated)}.")
        networks.update(table)
    return networks


NETWORKS = _union(resnet.NETWORKS, inception.NETWORKS, vgg.NETWORKS, mobile.NETWORKS)


def create_model(model: str, *, weights: str | os.PathLike | None = None, **options: Any) -> keras.Model:
    """Builds a network by its registry name.

    Args:
        model: E.g. "se_resnet50"; `list_models()` returns all of them. "model.tag" names a
            published checkpoint too, and stands for `weights=tag`.
        weights: None (random), the tag of a published checkpoint, "imagenet" for the network's
            default one, or the path of a file: `.safetensors`, `.pth` or `.caffemodel` as
            published or written here, `.weights.h5` or `.keras` of the same network.
        **options: The other arguments of the builders, e.g. `classes` (see `SEResNet50`).

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: An unknown name (the closest ones are given), weights that do not exist
            or do not fit, or an option that does not fit the network.
        DownloadError: A published checkpoint could not be fetched.
        TypeError: An unknown option.

    Example:

    >>> create_model("se_resnet20").output_shape
    (None, 10)
    """
    identifier, _, tag = model.partition(".")
    if tag:
        if weights is not None:
            raise ValueError(f"{model!r} names weights already; received weights={weights!r} as well. Pass only one.")
        weights = tag
    network = NETWORKS[one_of("model", identifier, NETWORKS)]
    return build(identifier, network, weights, Options(**options))


def list_models(pattern: str | None = None) -> list[str]:
    """The names of all networks, sorted.

    Args:
        pattern: Shell-style filter, e.g. "se_resnet*"; None for all.

    Returns:
        Registry names, each fit for `create_model`.

    Example:

    >>> list_models("*inception*")
    ['se_bn_inception', 'se_inception_resnet_v2', 'se_inception_v3']
    """
    return sorted(fnmatch.filter(NETWORKS, pattern or "*"))


def list_weights(model: str | None = None) -> list[str]:
    """The published checkpoints that can be loaded, sorted.

    Args:
        model: Registry name of a network; None for those of all.

    Returns:
        Identifiers "model.tag", each fit for `create_model`.

    Raises:
        ValueError: An unknown model (the closest names are given).
    """
    if model is not None:
        one_of("model", model, NETWORKS)
    return sorted(name for name in RECORDS if model in (None, name.partition(".")[0]))


def get_preprocessing(model: str) -> Preprocessing:
    """How a network's images are prepared when it is trained from scratch.

    Args:
        model: Registry name of a network.

    Returns:
        The record, for `preprocess` and `Preprocessing.normalize`.

    Raises:
        ValueError: An unknown model (the closest names are given).
    """
    return NETWORKS[one_of("model", model, NETWORKS)].preprocessing
