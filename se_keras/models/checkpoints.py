"""Networks with published or saved weights: the structure that a checkpoint was trained in, filled."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import keras

from se_keras.blocks.excitation import SEConfig
from se_keras.errors import one_of
from se_keras.models.network import Network, Options, assemble
from se_keras.preprocessing import Preprocessing
from se_keras.weights.files import READERS, SafetensorsFile, structure_of
from se_keras.weights.keras_files import KERAS_FILES, load_keras_file
from se_keras.weights.load import convert_file, family_of, load_adapted, load_own, load_record
from se_keras.weights.published import CAFFE_INPUT, DEFAULT_TAGS, RECORDS
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
        ValueError: Weights that do not exist or do not fit, or an option that does not fit the network.
        DownloadError: A published checkpoint could not be fetched.
    """
    if weights is None:
        return assemble(identifier, network, options)
    if not options.include_top and options.classes not in (None, network.classes):
        raise ValueError(
            f"`classes` belongs to the classifier, which include_top=False leaves out; received "
            f"classes={options.classes}. Pass only one of them."
        )
    if os.path.isfile(weights):
        return _with_file(identifier, network, os.fspath(weights), options)
    return _with_record(identifier, network, find_record(identifier, os.fspath(weights)), options)


def find_record(identifier: str, weights: str) -> WeightsRecord:
    """The record of a network's checkpoint.

    Args:
        identifier: Registry name of the network.
        weights: A tag, or "imagenet" for the default one.

    Returns:
        The record.

    Raises:
        ValueError: There is no such checkpoint (the closest tags are given), or it belongs to
            another network.
    """
    if os.sep in weights or weights.endswith((*READERS, *KERAS_FILES)):
        raise ValueError(f"There is no weights file at {weights!r}.")
    tags = {record.tag: record for record in RECORDS.values() if record.model == identifier}
    if not tags:
        raise ValueError(
            f"No weights have been published for {identifier!r}; received weights={weights!r}. Pass weights=None for a "
            "network with random weights, or the path of a file."
        )
    aliases = (ALIAS,) if identifier in DEFAULT_TAGS else ()
    if weights in aliases:
        return tags[DEFAULT_TAGS[identifier]]
    if weights == ALIAS:
        raise ValueError(
            f"{identifier!r} has no ImageNet weights; received weights={weights!r}. Its own: {', '.join(sorted(tags))}."
        )
    others = sorted(record.model for record in RECORDS.values() if record.tag == weights)
    if weights not in tags and others:
        raise ValueError(
            f"{identifier!r} has no checkpoint {weights!r}; {', '.join(others)} have. "
            f"Its own: {', '.join(sorted(tags))}."
        )
    return tags[one_of(f"weights of {identifier!r}", weights, (*aliases, *sorted(tags)))]


def _with_record(identifier: str, network: Network, record: WeightsRecord, options: Options) -> keras.Model:
    adapted = dataclasses.replace(network, preprocessing=_for_channels(record.preprocessing, options))
    options = dataclasses.replace(options, se=_se_of(record, options))
    model = assemble(identifier, adapted, options, lineage=record.lineage)
    load_record(model, record, lambda: _full(identifier, network, record.lineage))
    return model


def _se_of(record: WeightsRecord, options: Options) -> SEConfig | None:
    """SE as the checkpoint has it, and as asked for where that does not change the weights."""
    if record.plain:
        return None
    if record.reduction is None or options.se is None:
        return options.se
    if options.se.reduction not in (SEConfig.reduction, record.reduction):
        raise ValueError(
            f"The SE blocks of {record.identifier} have reduction {record.reduction}; received "
            f"se=SEConfig(reduction={options.se.reduction}). Leave it out, or pass weights=None."
        )
    return dataclasses.replace(options.se, reduction=record.reduction)


def _with_file(identifier: str, network: Network, path: str, options: Options) -> keras.Model:
    if path.endswith(KERAS_FILES):
        model = assemble(identifier, network, options)
        load_keras_file(model, path)
        return model
    one_of("kind of weights file", pathlib.Path(path).suffix, (*READERS, *KERAS_FILES))
    family = family_of(path)
    if family is None:
        return _with_own_file(identifier, network, path, options)
    is_caffe = family.startswith("caffe")
    lineage = {"timm": "timm", "timm_legacy": "legacy"}.get(family)
    lineage = lineage if lineage in network.lineages else None
    record = CAFFE_INPUT if is_caffe else Preprocessing()
    adapted = dataclasses.replace(network, preprocessing=_for_channels(record, options))
    model = assemble(identifier, adapted, options, lineage=lineage)
    full = _full(identifier, network, lineage)
    order, channels = ("devkit", "bgr") if is_caffe else ("sorted", "rgb")
    convert_file(full, path, family, class_order=order, channels=channels)
    load_adapted(model, full, source=path)
    return model


def _with_own_file(identifier: str, network: Network, path: str, options: Options) -> keras.Model:
    tensors = SafetensorsFile(path)
    adapted = dataclasses.replace(network, preprocessing=_for_channels(network.preprocessing, options))
    first = assemble(identifier, adapted, options)
    model = first
    for lineage in network.lineages:
        if structure_of(model) == tensors.metadata["structure"]:
            break
        model = assemble(identifier, adapted, options, lineage=lineage)
    load_own(model if structure_of(model) == tensors.metadata["structure"] else first, tensors)
    return model


def _full(identifier: str, network: Network, lineage: str | None) -> keras.Model:
    """The network as its checkpoints hold it: RGB, 1,000 classes."""
    return assemble(identifier, network, Options(input_shape=_rgb_of_any_size()), lineage=lineage)


def _rgb_of_any_size() -> tuple[int | None, ...]:
    return (None, None, 3) if keras.config.image_data_format() == "channels_last" else (3, None, None)


def _for_channels(record: Preprocessing, options: Options) -> Preprocessing:
    """The record for the number of channels asked for: R, G, B, R, ...; one channel gets the means over RGB."""
    shape = options.input_shape if options.input_tensor is None else tuple(options.input_tensor.shape[1:])
    if shape is None or len(shape) != 3:
        return record
    channels = shape[-1 if keras.config.image_data_format() == "channels_last" else 0]
    if channels is None or channels == len(record.mean):
        return record
    if channels == 1:
        return dataclasses.replace(record, mean=(sum(record.mean) / 3,), std=(sum(record.std) / 3,))
    repeats = -(-channels // 3)
    return dataclasses.replace(record, mean=(record.mean * repeats)[:channels], std=(record.std * repeats)[:channels])
