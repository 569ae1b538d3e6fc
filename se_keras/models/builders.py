"""The public builders: one per network, all with the same signature."""

import inspect
import os
from typing import Any, Protocol

import keras

from se_keras.blocks.excitation import SEConfig
from se_keras.models.network import Options
from se_keras.models.registry import NETWORKS, build
from se_keras.weights.published import ALIAS, DEFAULT_TAGS, RECORDS


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
        stores no preprocessing). Default: {weights!r}.
    input_tensor: A Keras tensor to use as the images, instead of a new input.
    input_shape: (height, width, channels), or (channels, height, width) with
        "channels_first"; height and width may be None. At least {min_size} pixels. Default:
        {size}x{size} RGB with the classifier, any size without. Other numbers of channels are
        normalized with the means of R, G, B, R, ...; one channel with their mean.
    pooling: Output without the classifier: None (a feature map), "avg" or "max" (a vector).
    classes: Number of classes, at least 1.
    classifier_activation: Activation of the predictions. None returns logits.
    name: Name of the model.
    se: Configuration of the SE blocks, see `SEConfig`. None builds the plain network. Stages
        with SE blocks: {stages}; positions: {positions}.
    include_preprocessing: Whether the model takes RGB images of 0 to 255 (uint8 or float)
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
    return f"{tags}; {ALIAS!r} is {DEFAULT_TAGS[identifier]}" if identifier in DEFAULT_TAGS else tags


def _builder(function_name: str, identifier: str) -> Builder:
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


SEResNet18 = _builder("SEResNet18", "se_resnet18")
SEResNet34 = _builder("SEResNet34", "se_resnet34")
SEResNet50 = _builder("SEResNet50", "se_resnet50")
SEResNet101 = _builder("SEResNet101", "se_resnet101")
SEResNet152 = _builder("SEResNet152", "se_resnet152")
SEResNet152D = _builder("SEResNet152D", "se_resnet152d")
SEResNeXt26 = _builder("SEResNeXt26", "se_resnext26")
SEResNeXt26D = _builder("SEResNeXt26D", "se_resnext26d")
SEResNeXt26T = _builder("SEResNeXt26T", "se_resnext26t")
SEResNeXt50 = _builder("SEResNeXt50", "se_resnext50")
SEResNeXt101 = _builder("SEResNeXt101", "se_resnext101")
SEResNeXt101_64x4d = _builder("SEResNeXt101_64x4d", "se_resnext101_64x4d")
SEResNeXt101_32x8d = _builder("SEResNeXt101_32x8d", "se_resnext101_32x8d")
SEResNeXt101D_32x8d = _builder("SEResNeXt101D_32x8d", "se_resnext101d_32x8d")
SENet154 = _builder("SENet154", "senet154")
SEBNInception = _builder("SEBNInception", "se_bn_inception")
SEInceptionV3 = _builder("SEInceptionV3", "se_inception_v3")
SEInceptionResNetV2 = _builder("SEInceptionResNetV2", "se_inception_resnet_v2")
SEVGG16 = _builder("SEVGG16", "se_vgg16")
SEMobileNet = _builder("SEMobileNet", "se_mobilenet")
SEShuffleNet = _builder("SEShuffleNet", "se_shufflenet")
SEResNet20 = _builder("SEResNet20", "se_resnet20")
SEResNet32 = _builder("SEResNet32", "se_resnet32")
SEResNet44 = _builder("SEResNet44", "se_resnet44")
SEResNet56 = _builder("SEResNet56", "se_resnet56")
SEResNet110 = _builder("SEResNet110", "se_resnet110")
SEPreResNet110 = _builder("SEPreResNet110", "se_preresnet110")
SEPreResNet164 = _builder("SEPreResNet164", "se_preresnet164")
SEWideResNet16_8 = _builder("SEWideResNet16_8", "se_wide_resnet16_8")
