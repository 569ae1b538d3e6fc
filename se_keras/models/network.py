"""The parts that all networks share: their description, the builders' options, and the assembly from input to head."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import layers

from se_keras.blocks.excitation import PAPER, POSITIONS, SEConfig
from se_keras.blocks.head import average_head, output_dtype
from se_keras.errors import check_count, one_of
from se_keras.images.record import Preprocessing
from se_keras.layers import ImagePreprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """One row of a table of variants: everything that distinguishes a network from the others.

    Args:
        title: Name as written, such as "SE-ResNet-50".
        about: Sentences for the docstring: structure, source, and deviations.
        skeleton: Builds the features: (tensor, spec, SE config or None) -> tensor.
        spec: The settings that `skeleton` reads.
        lineages: Specs of other structures that checkpoints of this network were trained in, by name.
        preprocessing: Input size and normalization for training from scratch.
        min_size: Minimum height and width of an input in pixels.
        stages: Stages that can have SE blocks.
        positions: `SEConfig.position` values that the skeleton supports.
        own_se: The configuration of its SE blocks, for the fields that the caller's leaves None.
        classes: Default number of classes.
        dropout: Default dropout rate before the classifier: the original's.
        head: Builds the classifier.
        any_size: Whether the classifier works at any input size.
    """

    title: str
    about: str
    skeleton: Callable[[Any, Any, SEConfig | None], Any]
    spec: Any
    lineages: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: Preprocessing = Preprocessing()
    min_size: int = 32
    stages: tuple[int, ...] = (2, 3, 4, 5)
    positions: tuple[str, ...] = POSITIONS
    own_se: SEConfig = PAPER
    classes: int = 1000
    dropout: float = 0.0
    head: Callable[..., Any] = average_head
    any_size: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of a builder, as documented on `Builder`. None means the network's default."""

    include_top: bool = True
    input_tensor: Any = None
    input_shape: tuple[int | None, ...] | None = None
    pooling: str | None = None
    classes: int | None = None
    classifier_activation: Any = "softmax"
    name: str | None = None
    se: SEConfig | None = SEConfig()
    include_preprocessing: bool = True
    dropout: float | None = None


def endpoint(x: Any, name: str) -> Any:
    """Names a feature map, for `model.get_layer(name)` and `feature_extractor`."""
    return layers.Identity(name=name)(x)


def assemble(identifier: str, network: Network, options: Options, *, lineage: str | None = None) -> keras.Model:
    """Builds a network with newly initialized weights.

    Args:
        identifier: The network's registry name, for error messages and as the default model name.
        network: Its description.
        options: The builder's arguments.
        lineage: Name of one of `network.lineages`. None for the network's own structure.

    Returns:
        A functional model.

    Raises:
        ValueError: An argument does not fit the network.
    """
    spec = network.spec if lineage is None else network.lineages[one_of("lineage", lineage, network.lineages)]
    se = _checked_se(identifier, network, options.se)
    classes = check_count("classes", network.classes if options.classes is None else options.classes)
    _check_head(options, classes)
    inputs = _image_input(identifier, network, options)
    x = inputs
    if options.include_preprocessing:
        preprocessing = network.preprocessing.for_channels(_channels_of(tuple(x.shape[1:])))
        x = ImagePreprocessing(**dataclasses.asdict(preprocessing), name="preprocessing")(x)
    x = network.skeleton(x, spec, se)
    if options.include_top:
        dropout = network.dropout if options.dropout is None else options.dropout
        x = network.head(x, classes=classes, activation=options.classifier_activation, dropout=dropout)
    elif options.pooling is not None:
        pool = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}[options.pooling]
        x = pool(dtype=output_dtype(), name="pooled")(x)
    if options.input_tensor is not None:
        sources = keras.utils.get_source_inputs(inputs)
        inputs = sources[0] if len(sources) == 1 else sources  # a list of one would require one-element lists as inputs
    return keras.Model(inputs, x, name=options.name or identifier)


def _channels_of(shape: tuple[Any, ...]) -> Any:
    return shape[-1 if keras.config.image_data_format() == "channels_last" else 0]


def _checked_se(identifier: str, network: Network, se: SEConfig | None) -> SEConfig | None:
    if se is None:
        return None
    if not isinstance(se, SEConfig):
        raise ValueError(f"`se` must be an SEConfig, or None for the plain network; received se={se!r}.")
    if se.position not in network.positions:
        raise ValueError(
            f"{identifier} does not support position={se.position!r}; it supports: {', '.join(network.positions)}."
        )
    if se.stages is not None and not set(se.stages) <= set(network.stages):
        raise ValueError(f"{identifier} can have SE in stages {network.stages}; received stages={se.stages}.")
    return se.completed(network.own_se)


def _check_head(options: Options, classes: int) -> None:
    if options.include_top and classes == 1 and _is_softmax(options.classifier_activation):
        raise ValueError(
            "A softmax over one output returns 1.0 for every image; received classes=1 with "
            f"classifier_activation={options.classifier_activation!r}. For two classes pass classes=2, or classes=1 "
            "with classifier_activation='sigmoid'; for a number per image, classifier_activation=None."
        )
    if options.pooling is not None:
        one_of("pooling", options.pooling, ("avg", "max"))
    if options.dropout is not None and not 0 <= options.dropout < 1:
        raise ValueError(f"`dropout` must be at least 0 and below 1; received dropout={options.dropout!r}.")


def _is_softmax(activation: Any) -> bool:
    return isinstance(activation, layers.Softmax) or keras.activations.get(activation) is keras.activations.softmax


def _image_input(identifier: str, network: Network, options: Options) -> Any:
    if options.input_tensor is not None:
        if not keras.backend.is_keras_tensor(options.input_tensor):
            raise ValueError(
                "`input_tensor` must be the output of a Keras layer or `keras.Input`; "
                f"received {type(options.input_tensor).__name__}."
            )
        shape = tuple(options.input_tensor.shape[1:])
        if options.input_shape is not None and tuple(options.input_shape) != shape:
            raise ValueError(
                f"`input_shape` must match `input_tensor`; received {tuple(options.input_shape)} and {shape}. "
                "Pass only one of them."
            )
        _check_image_shape(identifier, network, options, shape)
        return options.input_tensor
    shape = options.input_shape or default_shape(network, options.include_top)
    _check_image_shape(identifier, network, options, shape)
    return keras.Input([size and int(size) for size in shape], name="images")


def default_shape(network: Network, include_top: bool) -> tuple[int | None, ...]:
    """Returns the default shape of a network's images.

    Args:
        network: The network.
        include_top: Whether it includes its classifier; without, images have any size.

    Returns:
        (height, width, channels), or (channels, height, width) under Keras' "channels_first" setting.
    """
    size = network.preprocessing.height_width if include_top else (None, None)
    channels = len(network.preprocessing.mean)
    return (*size, channels) if keras.config.image_data_format() == "channels_last" else (channels, *size)


def _check_image_shape(identifier: str, network: Network, options: Options, shape: Any) -> None:
    layout = keras.config.image_data_format()
    if not isinstance(shape, Sequence) or len(shape) != 3:
        raise ValueError(
            f"`input_shape` must have 3 numbers, (height, width, channels); received input_shape={shape!r}."
        )
    shape = tuple(
        None if size is None else check_count(f"input_shape[{axis}]", size) for axis, size in enumerate(shape)
    )
    channels, size = _channels_of(shape), shape[:2] if layout == "channels_last" else shape[1:]
    if channels is None:
        raise ValueError(f"`input_shape` must state the number of channels; received {shape} ({layout}).")
    if not isinstance(channels, numbers.Integral) or channels < 1:
        raise ValueError(f"`input_shape` must have at least 1 channel; received input_shape={shape} ({layout}).")
    if any(value is not None and value < network.min_size for value in size):
        raise ValueError(
            f"{identifier} needs images of at least {network.min_size}x{network.min_size} pixels; "
            f"received input_shape={shape} ({layout})."
        )
    if options.include_top and not network.any_size and None in size:
        raise ValueError(
            f"The dense layers of {identifier} need a fixed input size; received input_shape={shape}. "
            "Set height and width, or pass include_top=False."
        )
