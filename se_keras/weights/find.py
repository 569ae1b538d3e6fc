"""The record for what a user passes as `weights`: that of a published checkpoint, or one made for a file."""

from __future__ import annotations

import functools
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from se_keras.errors import one_of
from se_keras.weights.keras_files import KERAS_FILES, stated_by
from se_keras.weights.published import ALIASES, NOT_COMMERCIAL, RECORDS
from se_keras.weights.readers import READERS, SafetensorsFile, Stated, read_tensors
from se_keras.weights.records import LocalFile, WeightsRecord
from se_keras.weights.rules import FAMILIES, KERAS, OWN
from se_keras.weights.structure import LINEAGES
from se_keras.weights.timm_layout import is_layout, read_layout


def find_record(model: str, weights: str | os.PathLike) -> WeightsRecord:
    """Returns the record of a network's checkpoint.

    Args:
        model: The network's registry name.
        weights: A tag, "imagenet" for the default tag, "paper" for that of the authors of the SE paper, or the path of
            a file. "hf-hub:OWNER/REPO" and "local-dir:PATH" name a network in timm's layout.

    Returns:
        The record. For a file, it holds what the tensors' names imply and what the file states about itself.

    Raises:
        ValueError: The checkpoint does not exist (the message names the closest tags), or it
            belongs to another network; or the file is damaged or of an unknown kind.
        DownloadError: A repository in timm's layout does not exist or could not be downloaded.
    """
    weights = os.fspath(weights)
    if is_layout(weights):
        return _record_of_layout(model, weights)
    if os.path.isfile(weights):
        return _record_of_file(model, weights)
    if names_file(weights):
        raise ValueError(f"There is no weights file at {weights!r}.")
    return _published_record(model, weights)


def names_file(weights: str | os.PathLike) -> bool:
    """Returns whether `weights` stands for a file or a network in timm's layout, not for a published checkpoint."""
    weights = os.fspath(weights)
    is_path = os.sep in weights or weights.endswith((*READERS, *KERAS_FILES))
    return is_layout(weights) or is_path or os.path.isfile(weights)


def _record_of_layout(model: str, name: str) -> WeightsRecord:
    record = read_layout(name)
    if record.model != model:
        raise ValueError(f"{name!r} is a {record.model!r}, not a {model!r}. se_keras.create_model({name!r}) builds it.")
    return record


def _published_record(model: str, tag: str) -> WeightsRecord:
    tags = {record.tag: record for record in RECORDS.values() if record.model == model}
    if not tags:
        raise ValueError(
            f"No weights have been published for {model!r}; received weights={tag!r}. Pass weights=None for "
            "random weights, or the path of a file."
        )
    aliases = {alias: by_model[model] for alias, by_model in ALIASES.items() if model in by_model}
    others = ", ".join(sorted(record.model for record in RECORDS.values() if record.tag == tag))
    if tag not in (*tags, *aliases) and (others or tag in ALIASES):
        kind = {"imagenet": "ImageNet weights", "paper": "weights by the authors of the SE paper"}.get(tag)
        problem = f"has no {kind}" if kind else f"has no checkpoint {tag!r}, unlike {others}"
        raise ValueError(f"{model!r} {problem}; received weights={tag!r}. Available: {', '.join(sorted(tags))}.")
    record = tags[aliases.get(tag) or one_of(f"weights of {model!r}", tag, (*aliases, *sorted(tags)))]
    if record.license in NOT_COMMERCIAL:
        _warn_of_license(record)
    return record


@functools.cache
def _warn_of_license(record: WeightsRecord) -> None:
    warnings.warn(
        f"The license of {record.identifier!r}, {record.license}, forbids commercial use. `se-keras list --weights` "
        f"shows the other weights of {record.model!r}.",
        stacklevel=6,
    )


def _record_of_file(model: str, path: str) -> WeightsRecord:
    if path.endswith(KERAS_FILES):
        return _record_as_stated(model, KERAS, LocalFile(path=path), stated_by(path))
    one_of("kind of weights file", pathlib.Path(path).suffix, (*READERS, *KERAS_FILES))
    tensors = read_tensors(path)
    source = LocalFile(path=path, tensors=tensors)
    if isinstance(tensors, SafetensorsFile) and tensors.is_own:
        return _record_as_stated(model, OWN, source, tensors.stated)
    name = _family_of(tensors, path)
    family = FAMILIES[name]
    return WeightsRecord(
        model=model,
        tag=path,
        family=name,
        lineage=family.lineage,
        sources=(source,),
        preprocessing=family.preprocessing,
    )


def _record_as_stated(model: str, family: str, source: LocalFile, stated: Stated) -> WeightsRecord:
    """Returns the record of a file that was saved with this package, which states what it was built as."""
    return WeightsRecord(
        model=model,
        tag=source.path,
        family=family,
        lineage=LINEAGES.get(stated.structure or ""),
        sources=(source,),
        preprocessing=stated.preprocessing,
        class_names=stated.class_names,
        classes=stated.classes,
        plain=None,
    )


def _family_of(tensors: Mapping[str, Any], path: str) -> str:
    for family, rules in FAMILIES.items():
        if rules.signature in tensors:
            return family
    shown = ", ".join(sorted(tensors)[:5])
    raise ValueError(f"{path!r} matches no known family ({', '.join(FAMILIES)}); it contains {shown}, ...")
