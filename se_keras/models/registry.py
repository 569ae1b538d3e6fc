"""The union of the tables of variants, and the builders by name."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from typing import Any

import keras

from se_keras.errors import one_of
from se_keras.images.record import Preprocessing
from se_keras.models import inception, mobile, resnet, vgg
from se_keras.models.checkpoints import build, find_record
from se_keras.models.network import Network, Options
from se_keras.preprocessing import preprocessing_of
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
        TypeError: An unknown option (the closest ones are given).

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
    _check_options(options)
    return build(identifier, network, weights, Options(**options))


def _check_options(options: dict[str, Any]) -> None:
    known = ("weights", *(field.name for field in dataclasses.fields(Options)))
    for name in options:
        try:
            one_of("argument of create_model", name, known)
        except ValueError as error:
            raise TypeError(str(error)) from None


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


def get_preprocessing(model: str | keras.Model) -> Preprocessing:
    """How a network's images are prepared.

    Args:
        model: Registry name of a network, for training it from scratch; "model.tag" for a
            published checkpoint; or a model with its preprocessing inside.

    Returns:
        The record, for `preprocess` and `Preprocessing.normalize`.

    Raises:
        ValueError: An unknown network or checkpoint (the closest names are given), or a model
            without preprocessing inside.

    Example:

    >>> get_preprocessing("se_resnet50.a3_in1k").size
    160
    """
    if isinstance(model, keras.Model):
        return preprocessing_of(model)
    identifier, _, tag = model.partition(".")
    network = NETWORKS[one_of("model", identifier, NETWORKS)]
    return find_record(identifier, tag).preprocessing if tag else network.preprocessing
