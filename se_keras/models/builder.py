"""Construction of the public builders, all with the same signature; `builders` lists them."""

import inspect
import os
from typing import Any, Protocol

import keras

from se_keras.blocks.excitation import SEConfig
from se_keras.models.network import Options
from se_keras.models.registry import NETWORKS, build
from se_keras.weights.published import ALIAS, ALIASES, DEFAULT_TAGS, RECORDS

BUILDERS = "se_keras.models.builders"  # where pickle looks for them


class Builder(Protocol):
    """A function that builds one network, with the arguments of `keras.applications` and three more."""

    __name__: str

    def __call__(
        self,
        include_top: bool = True,
        weights: str | os.PathLike | None = ...,
        input_tensor: Any = None,
        input_shape: tuple[int | None, ...] | None = None,
        pooling: str | None = None,
        classes: int = ...,
        classifier_activation: Any = "softmax",
        name: str = ...,
        *,
        se: SEConfig | None = SEConfig(),
        include_preprocessing: bool = True,
        dropout: float | None = None,
    ) -> keras.Model: ...


_DOCSTRING = """Builds {title}.

{about}

Args:
    include_top: Whether to include the classifier at the end of the network.
    weights: None (random initialization), the tag of a published checkpoint ({tags}),
        or the path of a file: `.safetensors`, `.pth`, or `.caffemodel` as published, or
        `.safetensors`, `.keras`, or `.weights.h5` of the same network as saved here (the last
        stores no preprocessing), or "hf-hub:OWNER/REPO" or "local-dir:PATH" for this network in
        timm's layout. Default: {weights!r}.
    input_tensor: A Keras tensor to use as the images, instead of a new input.
    input_shape: (height, width, channels), or (channels, height, width) with
        "channels_first"; height and width may be None. At least {min_size} pixels. Default:
        {size}x{size} RGB with the classifier, any size without; the channels of a file that states
        them. Other numbers of channels are normalized with the means of R, G, B, R, ...; one channel
        with their mean.
    pooling: Output without the classifier: None (a feature map), "avg" or "max" (a vector).
    classes: Number of classes, at least 1.
    classifier_activation: Activation of the predictions. None returns logits.
    name: Name of the model.
    se: Configuration of the SE blocks, see `SEConfig`. None builds the plain network. Stages
        with SE blocks: {stages}; positions: {positions}.
    include_preprocessing: Whether the model takes RGB images from 0 to 255 (uint8 or float)
        and normalizes them itself.
    dropout: Dropout rate before the classifier, at least 0 and below 1. Default: {dropout:g}.

Returns:
    A functional `keras.Model`: images (batch, height, width, 3) in, probabilities
    (batch, classes) out, in float32 even under a half-precision policy.

Raises:
    ValueError: An argument does not fit the network, or the weights do not exist.
    WeightsMismatchError: The weights belong to another network or another structure.
    DownloadError: A published checkpoint could not be downloaded.

Example:

    model = {function}(weights=None, classes=5)
    model.output_shape  # (None, 5)
"""


def _tags(identifier: str) -> str:
    """Returns the tags of a network's published checkpoints, for its docstring."""
    tags = ", ".join(record.tag for record in RECORDS.values() if record.model == identifier) or "none exists"
    aliases = [f"{alias!r} is {by_model[identifier]}" for alias, by_model in ALIASES.items() if identifier in by_model]
    return f"{tags}; {', '.join(aliases)}" if aliases else tags


def new_builder(function_name: str, identifier: str) -> Builder:
    """Makes the builder of a network.

    Args:
        function_name: Its name in `se_keras.models.builders`.
        identifier: The network's registry name.

    Returns:
        The function.
    """
    network = NETWORKS[identifier]
    defaults = {
        "weights": ALIAS if identifier in DEFAULT_TAGS else None,
        "classes": network.classes,
        "name": identifier,
    }
    _, *parameters = inspect.signature(Builder.__call__).parameters.values()
    signature = inspect.Signature(
        [one.replace(default=defaults.get(one.name, one.default)) for one in parameters],
        return_annotation=keras.Model,
    )

    def builder(*args: Any, **kwargs: Any) -> keras.Model:
        arguments = signature.bind(*args, **kwargs).arguments
        weights = arguments.pop("weights", defaults["weights"])
        return build(identifier, weights, Options(**arguments))

    vars(builder)["__signature__"] = signature
    builder.__name__ = builder.__qualname__ = function_name
    builder.__module__ = BUILDERS
    builder.__doc__ = _DOCSTRING.format(
        title=network.title,
        about=network.about,
        weights=defaults["weights"],
        tags=_tags(identifier),
        function=function_name,
        min_size=network.min_size,
        size=network.preprocessing.size,
        stages=", ".join(map(str, network.stages)),
        positions=", ".join(network.positions),
        dropout=network.dropout,
    )
    return builder
