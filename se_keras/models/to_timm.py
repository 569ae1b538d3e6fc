"""Networks of this package, written in timm's layout."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
from safetensors.numpy import save_file

from se_keras.class_names import get_class_names
from se_keras.files import TIMM_LAYOUT, replacing
from se_keras.images.record import Preprocessing
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.preprocessing import preprocessing_of, stored_preprocessing
from se_keras.surgery.graph import read_nested_graph
from se_keras.weights.convert import STEMS, tensors_of, variables_by_name
from se_keras.weights.rules import FAMILIES
from se_keras.weights.timm_layout import CONFIG_FILE, WEIGHTS_FILES
from se_keras.weights.timm_names import ARCHITECTURES

_CARD = """---
tags:
- image-classification
- timm
pipeline_tag: image-classification
library_name: timm
# license: state the license of these weights, for example apache-2.0
---
# {name}

| | |
| --- | --- |
| Network | {title}, timm's `{architecture}` |
| Parameters | {parameters:,} |
| Input | RGB, {height}x{width} pixels, crop {preprocessing.crop:g}, {preprocessing.interpolation} |
| Mean, standard deviation | {preprocessing.mean}, {preprocessing.std} |
| Classes | {classes} |

In PyTorch, the outputs are logits:

    timm.create_model("hf-hub:OWNER/REPO", pretrained=True)

In Keras:

    se_keras.create_model("hf-hub:OWNER/REPO")
"""
_MOST_NAMES = 50

# What two equal networks may differ in: it does not change what they compute at inference, or the layout states it.
_IGNORED = {
    *("name", "trainable", "dtype", "seed", "rate", "noise_shape", "momentum", "synchronized", "renorm"),
    *("mean", "std", "size", "crop", "interpolation", "class_names", "classifier", "batch_shape", "sparse", "optional"),
    *("ragged", "activity_regularizer", "lora_rank", "lora_alpha", "quantization_config"),
}
_IGNORED_ENDINGS = ("_initializer", "_regularizer", "_constraint")


def save_for_timm(model: keras.Model, directory: str | os.PathLike, *, overwrite: bool = False) -> pathlib.Path:
    """Writes a network in timm's layout, for `timm.create_model("local-dir:FOLDER", pretrained=True)` and the hub.

    timm's network returns the same logits as this one. Class names and preprocessing are included. Any network that
    timm also has can be written, with any number of classes and image channels, as this package builds it.

    Args:
        model: The network, with its classifier and its preprocessing.
        directory: The folder to write: `config.json`, `model.safetensors`, and `README.md`, a model card in which you
            state the license of your weights. It appears only when it is complete.
        overwrite: Whether to replace such a folder, including the card. A folder with other files is never replaced.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder exists, and `overwrite` is False or it has other content.
        OSError: The folder cannot be written, for example because the disk is full.
        ValueError: timm does not have the network: it is in its deployed form, for example, or its SE blocks have
            another reduction. The message says what is different.

    Example:

        model = se_keras.RegNetY032(classes=5)
        se_keras.save_for_timm(model, "out")
    """
    architecture = _architecture_of(model)
    preprocessing = preprocessing_of(model)
    tensors = tensors_of(model, ARCHITECTURES[architecture].family)
    config = _config(model, architecture, preprocessing)
    with replacing(directory, overwrite=overwrite, kind=TIMM_LAYOUT) as folder:
        folder.mkdir()
        save_file(tensors, folder / WEIGHTS_FILES[0], metadata={"format": "pt"})
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        (folder / "README.md").write_text(_card(model, architecture, preprocessing), "utf-8")
    return pathlib.Path(directory)


def _config(model: keras.Model, architecture: str, preprocessing: Preprocessing) -> dict[str, Any]:
    rules = FAMILIES[ARCHITECTURES[architecture].family]
    variables = variables_by_name(model)
    features, classes = variables["logits/kernel"].shape
    (stem,) = (name for name in STEMS if name in variables)
    channels, first = variables[stem].shape[2], rules.source(stem.partition("/")[0], "Conv2D", "kernel")
    names = get_class_names(model)
    return {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": features,
        "global_pool": "avg",
        **({"label_names": names} if len(names) == classes else {}),
        **({"model_args": {"in_chans": channels}} if channels != 3 else {}),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [channels, *preprocessing.height_width],
            "fixed_input_size": False,
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop,
            "crop_mode": "center",
            "mean": preprocessing.mean,
            "std": preprocessing.std,
            "num_classes": classes,
            "pool_size": None,
            "first_conv": first.tensors[0].removesuffix(".weight") if first else None,
            "classifier": rules.classifier("kernel").tensors[0].removesuffix(".weight"),
        },
    }


def _card(model: keras.Model, architecture: str, preprocessing: Preprocessing) -> str:
    names, classes = get_class_names(model), model.output_shape[-1]
    listed = f"{', '.join(names[:_MOST_NAMES])}{', ...' if names[_MOST_NAMES:] else ''}"
    height, width = preprocessing.height_width
    return _CARD.format(
        name=model.name,
        title=NETWORKS[ARCHITECTURES[architecture].model].title,
        architecture=architecture,
        parameters=sum(_sizes(model)),
        height=height,
        width=width,
        preprocessing=preprocessing,
        classes=f"{classes}: {listed}" if names else f"{classes}",
    )


def _architecture_of(model: keras.Model) -> str:
    """Returns the timm architecture that a model is."""
    _check_parts(model)
    differences = []
    for name in _candidates(model):
        reference = _reference(name, model)
        difference = next(_differences(model, reference), "")
        if not difference:
            return name
        differences.append(f"{name} {difference}")
    named = [name for name, one in ARCHITECTURES.items() if one.model == model.name]
    if not differences and named:
        differences.append(f"{named[0]} {next(_differences(model, _reference(named[0], model)))}")
    reason = f": {differences[0]}" if differences else ""
    raise ValueError(f"timm does not have the network {model.name!r} as it is{reason}. Pass it as it was built.")


def _check_parts(model: keras.Model) -> None:
    """Refuses what is no network of this package with classifier, preprocessing, and batch normalization."""
    kinds = {layer.name: type(layer).__name__ for layer in model.layers}
    if kinds.get("logits") != "Dense":
        raise ValueError(
            f"A network in timm's layout has a classifier, and {model.name!r} has no layer named 'logits'. Build it "
            "with include_top=True."
        )
    if "BatchNormalization" not in kinds.values():
        raise ValueError(
            f"{model.name!r} has no batch normalization: it is in its deployed form, which timm does not have. Pass "
            "the model that was deployed."
        )
    if stored_preprocessing(model) is None:
        raise ValueError(
            f"A network in timm's layout states its preprocessing, and {model.name!r} was built without. Build it with "
            "include_preprocessing=True."
        )


def _sizes(model: keras.Model) -> Iterator[int]:
    for name, variable in variables_by_name(model).items():
        if not name.endswith(("/moving_mean", "/moving_variance")):
            yield math.prod(variable.shape)


def _candidates(model: keras.Model) -> list[str]:
    """Returns timm's architectures with as many parameters between the images and the classifier as a model has."""
    variables = variables_by_name(model)
    features, classes = variables["logits/kernel"].shape
    body = sum(_sizes(model)) - (features + 1) * classes
    for kernel in (variables[name].shape for name in STEMS if name in variables):
        body += kernel[0] * kernel[1] * (3 - kernel[2]) * kernel[3]
    return [name for name, one in ARCHITECTURES.items() if one.parameters - (features + 1) * one.classes == body]


def _reference(name: str, model: keras.Model) -> keras.Model:
    """Returns a network of timm's as it would have been built in place of a model."""
    architecture, layers = ARCHITECTURES[name], {layer.name: layer for layer in model.layers}
    network = NETWORKS[architecture.model]
    options = Options(
        classes=layers["logits"].units,
        input_shape=model.input_shape[1:],
        classifier_activation=layers["predictions"].activation if "predictions" in layers else None,
        dropout=layers["dropout"].rate if "dropout" in layers else 0.0,
    )
    lineage = architecture.lineage if architecture.lineage in network.lineages else None
    return assemble(architecture.model, network, options, lineage=lineage)


def _differences(model: keras.Model, reference: keras.Model) -> Iterator[str]:
    """Yields what distinguishes a model from timm's network."""
    ours, theirs = ({name: tuple(x.shape) for name, x in variables_by_name(m).items()} for m in (model, reference))
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            shapes = [f"has {name} {found[name]}" if name in found else f"lacks {name}" for found in (theirs, ours)]
            yield f"{shapes[0]}, and this one {shapes[1]}"
    rows, others = _rows(model), _rows(reference)
    for name in rows | others:
        if rows.get(name) != others.get(name):
            yield f"differs from this one in the layer {name!r}"


def _rows(model: keras.Model) -> dict[str, tuple[Any, ...]]:
    """Returns what each layer of a model computes, and from the outputs of which layers."""
    graph = read_nested_graph(model)
    rows = {}
    for call in graph.calls:
        producers = [graph.producer(x) for x in call.inputs]
        inputs = tuple("" if producer is None else producer.name for producer in producers)
        rows[call.name] = (type(call.operation).__name__, _facts(call.operation), inputs)
    return rows


def _facts(operation: Any) -> str:
    config = operation.get_config()
    facts = {key: value for key, value in config.items() if key not in _IGNORED and not key.endswith(_IGNORED_ENDINGS)}
    return json.dumps(facts, sort_keys=True, default=repr)
