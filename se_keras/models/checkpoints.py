"""Networks with published or saved weights: builds the structure that a checkpoint was trained in, and fills it."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import keras

from se_keras.blocks.excitation import SEConfig
from se_keras.errors import one_of
from se_keras.images.record import Preprocessing
from se_keras.layers import SqueezeExcite
from se_keras.models.network import Network, Options, assemble
from se_keras.preprocessing import stored_preprocessing
from se_keras.weights.files import fingerprint_of
from se_keras.weights.keras_files import KERAS_FILES, load_keras_file, stated_by
from se_keras.weights.load import convert_file, family_of, load_adapted, load_own, load_record
from se_keras.weights.published import CAFFE_INPUT, DEFAULT_TAGS, RECORDS
from se_keras.weights.readers import READERS, SafetensorsFile, Stated
from se_keras.weights.records import WeightsRecord

ALIAS = "imagenet"


def build(identifier: str, network: Network, weights: str | os.PathLike | None, options: Options) -> keras.Model:
    """Builds a network, with weights if any are named.

    Args:
        identifier: The network's registry name.
        network: Its description.
        weights: None, the path of a file, a tag, or "imagenet" for the default tag.
        options: The builder's arguments.

    Returns:
        A functional model.

    Raises:
        ValueError: The weights do not exist or do not fit, or an option does not fit the network.
        DownloadError: A published checkpoint could not be downloaded.
    """
    if weights is None:
        return assemble(identifier, network, options)
    if os.path.isfile(weights):
        return _with_file(identifier, network, os.fspath(weights), options)
    return _with_record(identifier, network, find_record(identifier, os.fspath(weights)), options)


def find_record(identifier: str, weights: str) -> WeightsRecord:
    """Returns the record of a network's checkpoint.

    Args:
        identifier: The network's registry name.
        weights: A tag, or "imagenet" for the default tag.

    Returns:
        The record.

    Raises:
        ValueError: The checkpoint does not exist (the message names the closest tags), or it
            belongs to another network.
    """
    if os.sep in weights or weights.endswith((*READERS, *KERAS_FILES)):
        raise ValueError(f"There is no weights file at {weights!r}.")
    tags = {record.tag: record for record in RECORDS.values() if record.model == identifier}
    if not tags:
        raise ValueError(
            f"No weights have been published for {identifier!r}; received weights={weights!r}. Pass weights=None for "
            "random weights, or the path of a file."
        )
    aliases = (ALIAS,) if identifier in DEFAULT_TAGS else ()
    if weights in aliases:
        return tags[DEFAULT_TAGS[identifier]]
    if weights == ALIAS:
        raise ValueError(
            f"{identifier!r} has no ImageNet weights; received weights={weights!r}. "
            f"Available: {', '.join(sorted(tags))}."
        )
    others = sorted(record.model for record in RECORDS.values() if record.tag == weights)
    if weights not in tags and others:
        raise ValueError(
            f"{identifier!r} has no checkpoint {weights!r}; {', '.join(others)} have. "
            f"Available: {', '.join(sorted(tags))}."
        )
    return tags[one_of(f"weights of {identifier!r}", weights, (*aliases, *sorted(tags)))]


def _with_record(identifier: str, network: Network, record: WeightsRecord, options: Options) -> keras.Model:
    adapted = dataclasses.replace(network, preprocessing=record.preprocessing)
    options = dataclasses.replace(options, se=_se_of(record, options))
    model = assemble(identifier, adapted, options, lineage=record.lineage)
    load_record(model, record, lambda: _full(identifier, adapted, record.lineage))
    return model


def _se_of(record: WeightsRecord, options: Options) -> SEConfig | None:
    """Returns the checkpoint's SE configuration, with the caller's settings where they do not change the weights."""
    if record.plain:
        if options.se not in (None, SEConfig()):
            raise ValueError(f"{record.tag!r} has no SE blocks; received se={options.se!r} as well. Leave it out.")
        return None
    if options.se is None:
        plain = [repr(other.tag) for other in RECORDS.values() if other.plain and other.model == record.model]
        remedy = f"weights={' or '.join(plain)}" if plain else "weights=None"
        raise ValueError(
            f"{record.tag!r} has SE blocks; received se=None as well. For the plain network pass {remedy}."
        )
    if record.reduction is None:
        return options.se
    if options.se.reduction not in (SEConfig.reduction, record.reduction):
        raise ValueError(
            f"The SE blocks of {record.identifier} have reduction {record.reduction}; received "
            f"se=SEConfig(reduction={options.se.reduction}). Leave it out, or pass weights=None."
        )
    return dataclasses.replace(options.se, reduction=record.reduction)


def _with_file(identifier: str, network: Network, path: str, options: Options) -> keras.Model:
    if path.endswith(KERAS_FILES):
        model = _as_stated(identifier, network, options, stated_by(path))
        load_keras_file(model, path)
        return model
    one_of("kind of weights file", pathlib.Path(path).suffix, (*READERS, *KERAS_FILES))
    family = family_of(path)
    if family is None:
        tensors = SafetensorsFile(path)
        model = _as_stated(identifier, network, options, tensors.stated)
        load_own(model, tensors)
        return model
    is_caffe = family.startswith("caffe")
    lineage = {"timm": "timm", "timm_legacy": "legacy"}.get(family)
    lineage = lineage if lineage in network.lineages else None
    adapted = dataclasses.replace(network, preprocessing=CAFFE_INPUT if is_caffe else Preprocessing())
    model = assemble(identifier, adapted, options, lineage=lineage)
    full = _full(identifier, adapted, lineage)
    order, channels = ("devkit", "bgr") if is_caffe else ("sorted", "rgb")
    convert_file(full, path, family, class_order=order, channels=channels)
    load_adapted(model, full, source=path)
    return model


def _as_stated(identifier: str, network: Network, options: Options, stated: Stated) -> keras.Model:
    """Builds the network in the structure and with the preprocessing that a file states; else in its own structure."""
    adapted = dataclasses.replace(network, preprocessing=stated.preprocessing or network.preprocessing)
    own = assemble(identifier, adapted, options)
    if stated.structure in (None, fingerprint_of(own)):
        return own
    for lineage in network.lineages:
        model = assemble(identifier, adapted, options, lineage=lineage)
        if fingerprint_of(model) == stated.structure:
            return model
    return own


def lost_without_config(identifier: str, network: Network, model: keras.Model) -> tuple[str, ...]:
    """Returns what a file of weights alone (`.weights.h5`) loses of a model: where it differs from its network.

    Args:
        identifier: The network's registry name.
        network: Its description.
        model: A model of this network, for example one with published weights.

    Returns:
        Those of "preprocessing" and "structure" that would fall back to the network's own.
    """
    se = SEConfig() if any(isinstance(layer, SqueezeExcite) for layer in model.layers) else None
    own = assemble(identifier, network, Options(input_shape=model.input_shape[1:], se=se))
    differing = {
        "preprocessing": stored_preprocessing(model) != network.preprocessing,
        "structure": fingerprint_of(model) != fingerprint_of(own),
    }
    return tuple(name for name, differs in differing.items() if differs)


def _full(identifier: str, network: Network, lineage: str | None) -> keras.Model:
    """Builds the network as its checkpoints store it: RGB, 1,000 classes."""
    return assemble(identifier, network, Options(input_shape=_rgb_of_any_size()), lineage=lineage)


def _rgb_of_any_size() -> tuple[int | None, ...]:
    return (None, None, 3) if keras.config.image_data_format() == "channels_last" else (3, None, None)
