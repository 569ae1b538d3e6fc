"""The public builders: one per network, all with the same signature."""

import inspect
import os
from typing import Any, Protocol

import keras

from se_keras.blocks.excitation import SEConfig
from se_keras.models.network import Options
from se_keras.models.registry import NETWORKS, build
from se_keras.weights.published import ALIAS, ALIASES, DEFAULT_TAGS, RECORDS


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
    aliases = [f"{alias!r} is {by_model[identifier]}" for alias, by_model in ALIASES.items() if identifier in by_model]
    return f"{tags}; {', '.join(aliases)}" if aliases else tags


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
MobileNetV3Small050 = _builder("MobileNetV3Small050", "mobilenetv3_small_050")
MobileNetV3Small075 = _builder("MobileNetV3Small075", "mobilenetv3_small_075")
MobileNetV3Small = _builder("MobileNetV3Small", "mobilenetv3_small_100")
MobileNetV3Large = _builder("MobileNetV3Large", "mobilenetv3_large_100")
MobileNetV3Large150D = _builder("MobileNetV3Large150D", "mobilenetv3_large_150d")
TFMobileNetV3Small075 = _builder("TFMobileNetV3Small075", "tf_mobilenetv3_small_075")
TFMobileNetV3Small = _builder("TFMobileNetV3Small", "tf_mobilenetv3_small_100")
TFMobileNetV3Large075 = _builder("TFMobileNetV3Large075", "tf_mobilenetv3_large_075")
TFMobileNetV3Large = _builder("TFMobileNetV3Large", "tf_mobilenetv3_large_100")
EfficientNetB0 = _builder("EfficientNetB0", "efficientnet_b0")
EfficientNetB1 = _builder("EfficientNetB1", "efficientnet_b1")
EfficientNetB2 = _builder("EfficientNetB2", "efficientnet_b2")
EfficientNetB3 = _builder("EfficientNetB3", "efficientnet_b3")
EfficientNetB4 = _builder("EfficientNetB4", "efficientnet_b4")
EfficientNetB5 = _builder("EfficientNetB5", "efficientnet_b5")
TFEfficientNetB0 = _builder("TFEfficientNetB0", "tf_efficientnet_b0")
TFEfficientNetB1 = _builder("TFEfficientNetB1", "tf_efficientnet_b1")
TFEfficientNetB2 = _builder("TFEfficientNetB2", "tf_efficientnet_b2")
TFEfficientNetB3 = _builder("TFEfficientNetB3", "tf_efficientnet_b3")
TFEfficientNetB4 = _builder("TFEfficientNetB4", "tf_efficientnet_b4")
TFEfficientNetB5 = _builder("TFEfficientNetB5", "tf_efficientnet_b5")
TFEfficientNetB6 = _builder("TFEfficientNetB6", "tf_efficientnet_b6")
TFEfficientNetB7 = _builder("TFEfficientNetB7", "tf_efficientnet_b7")
TFEfficientNetB8 = _builder("TFEfficientNetB8", "tf_efficientnet_b8")
EfficientNetV2RWT = _builder("EfficientNetV2RWT", "efficientnetv2_rw_t")
EfficientNetV2RWS = _builder("EfficientNetV2RWS", "efficientnetv2_rw_s")
EfficientNetV2RWM = _builder("EfficientNetV2RWM", "efficientnetv2_rw_m")
TFEfficientNetV2B0 = _builder("TFEfficientNetV2B0", "tf_efficientnetv2_b0")
TFEfficientNetV2B1 = _builder("TFEfficientNetV2B1", "tf_efficientnetv2_b1")
TFEfficientNetV2B2 = _builder("TFEfficientNetV2B2", "tf_efficientnetv2_b2")
TFEfficientNetV2B3 = _builder("TFEfficientNetV2B3", "tf_efficientnetv2_b3")
TFEfficientNetV2S = _builder("TFEfficientNetV2S", "tf_efficientnetv2_s")
TFEfficientNetV2M = _builder("TFEfficientNetV2M", "tf_efficientnetv2_m")
TFEfficientNetV2L = _builder("TFEfficientNetV2L", "tf_efficientnetv2_l")
SEMNASNet075 = _builder("SEMNASNet075", "semnasnet_075")
SEMNASNet100 = _builder("SEMNASNet100", "semnasnet_100")
LCNet050 = _builder("LCNet050", "lcnet_050")
LCNet075 = _builder("LCNet075", "lcnet_075")
LCNet100 = _builder("LCNet100", "lcnet_100")
TinyNetA = _builder("TinyNetA", "tinynet_a")
TinyNetB = _builder("TinyNetB", "tinynet_b")
TinyNetC = _builder("TinyNetC", "tinynet_c")
TinyNetD = _builder("TinyNetD", "tinynet_d")
TinyNetE = _builder("TinyNetE", "tinynet_e")
FBNetV3B = _builder("FBNetV3B", "fbnetv3_b")
FBNetV3D = _builder("FBNetV3D", "fbnetv3_d")
FBNetV3G = _builder("FBNetV3G", "fbnetv3_g")
RegNetY002 = _builder("RegNetY002", "regnety_002")
RegNetY004 = _builder("RegNetY004", "regnety_004")
RegNetY006 = _builder("RegNetY006", "regnety_006")
RegNetY008 = _builder("RegNetY008", "regnety_008")
RegNetY008_TV = _builder("RegNetY008_TV", "regnety_008_tv")
RegNetY016 = _builder("RegNetY016", "regnety_016")
RegNetY032 = _builder("RegNetY032", "regnety_032")
RegNetY040 = _builder("RegNetY040", "regnety_040")
RegNetY064 = _builder("RegNetY064", "regnety_064")
RegNetY080 = _builder("RegNetY080", "regnety_080")
RegNetY080_TV = _builder("RegNetY080_TV", "regnety_080_tv")
RegNetY120 = _builder("RegNetY120", "regnety_120")
RegNetY160 = _builder("RegNetY160", "regnety_160")
RegNetY320 = _builder("RegNetY320", "regnety_320")
RegNetY640 = _builder("RegNetY640", "regnety_640")
RegNetY1280 = _builder("RegNetY1280", "regnety_1280")
SEResNeXtAA101D_32x8d = _builder("SEResNeXtAA101D_32x8d", "seresnextaa101d_32x8d")
SEResNeXtAA201D_32x8d = _builder("SEResNeXtAA201D_32x8d", "seresnextaa201d_32x8d")
ResNetRS50 = _builder("ResNetRS50", "resnetrs50")
ResNetRS101 = _builder("ResNetRS101", "resnetrs101")
ResNetRS152 = _builder("ResNetRS152", "resnetrs152")
ResNetRS200 = _builder("ResNetRS200", "resnetrs200")
ResNetRS270 = _builder("ResNetRS270", "resnetrs270")
ResNetRS350 = _builder("ResNetRS350", "resnetrs350")
ResNetRS420 = _builder("ResNetRS420", "resnetrs420")
