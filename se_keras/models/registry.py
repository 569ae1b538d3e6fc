"""All tables of variants in one, and the functions that look up and build networks by name."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from typing import Any

import keras

from se_keras.errors import one_of
from se_keras.images.record import Preprocessing
from se_keras.models import inception, inverted, mobile, regnet, resnet, vgg
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


NETWORKS = _union(
    resnet.NETWORKS, regnet.NETWORKS, inverted.NETWORKS, inception.NETWORKS, vgg.NETWORKS, mobile.NETWORKS
)


def create_model(model: str, *, weights: str | os.PathLike | None = None, **options: Any) -> keras.Model:
    """Builds a network by its registry name.

    Args:
        model: Registry name, such as "se_resnet50"; `list_models()` returns all of them. "model.tag"
            also names a published checkpoint, and is equivalent to `weights=tag`.
        weights: None (random initialization), the tag of a published checkpoint, "imagenet" for the
            network's default tag, or the path of a file: `.safetensors`, `.pth`, or `.caffemodel` as
            published or written here, `.weights.h5` or `.keras` of the same network.
        **options: The other arguments of the builders, such as `classes` (see `SEResNet50`).

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: The name is unknown (the message names the closest ones), the weights do not exist
            or do not fit, or an option does not fit the network.
        DownloadError: A published checkpoint could not be downloaded.
        TypeError: An option is unknown (the message names the closest ones).

    Example:

    >>> create_model("se_resnet20").output_shape
    (None, 10)
    """
    identifier, _, tag = model.partition(".")
    if tag:
        if weights is not None:
            raise ValueError(f"{model!r} already names weights; also received weights={weights!r}. Pass only one.")
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
    """Lists the names of all networks, sorted.

    Args:
        pattern: Shell-style filter, such as "se_resnet*". None for all.

    Returns:
        Registry names, each valid for `create_model`.

    Example:

    >>> list_models("*inception*")
    ['se_bn_inception', 'se_inception_resnet_v2', 'se_inception_v3']
    """
    return sorted(fnmatch.filter(NETWORKS, pattern or "*"))


def list_weights(model: str | None = None) -> list[str]:
    """Lists the published checkpoints that can be loaded, sorted.

    Args:
        model: Registry name of a network. None for those of all networks.

    Returns:
        Identifiers "model.tag", each valid for `create_model`.

    Raises:
        ValueError: The model is unknown (the message names the closest ones).
    """
    if model is not None:
        one_of("model", model, NETWORKS)
    return sorted(name for name in RECORDS if model in (None, name.partition(".")[0]))


def get_preprocessing(model: str | keras.Model) -> Preprocessing:
    """Returns the preprocessing of a network's images.

    Args:
        model: Registry name of a network, for training it from scratch; "model.tag" for a
            published checkpoint; or a model that includes its preprocessing.

    Returns:
        The record, for `preprocess` and `Preprocessing.normalize`.

    Raises:
        ValueError: The network or checkpoint is unknown (the message names the closest ones), or the
            model does not include its preprocessing.

    Example:

    >>> get_preprocessing("se_resnet50.a3_in1k").size
    160
    """
    if isinstance(model, keras.Model):
        return preprocessing_of(model)
    identifier, _, tag = model.partition(".")
    network = NETWORKS[one_of("model", identifier, NETWORKS)]
    return find_record(identifier, tag).preprocessing if tag else network.preprocessing
