"""Networks of this package as KerasHub backbones."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import keras
import keras_hub

from se_keras.blocks.excitation import SEConfig
from se_keras.errors import one_of
from se_keras.hub.policy import dtype_policy
from se_keras.images.record import Preprocessing
from se_keras.models.network import Network, Options, assemble
from se_keras.models.registry import NETWORKS


@keras.saving.register_keras_serializable("se_keras")
class SEBackbone(keras_hub.models.FeaturePyramidBackbone):
    """A network of this package without its classifier, as a backbone for KerasHub's detectors and segmenters.

    `pyramid_outputs` maps "P2" to the feature map at 1/4 of the input's size, and so on to "P5" at 1/32: the outputs
    of stages 2 to 5. The CIFAR networks have "P0" to "P2". The weights have the names that they have in
    `create_model`, and are random: `se_keras.hub.backbone` also loads published ones.

    Args:
        model: Registry name of the network, such as "se_resnet50".
        image_shape: (height, width, channels), or (channels, height, width) under Keras' "channels_first"
            setting; height and width may be None. Default: RGB images of any size.
        se: The SE blocks, an `SEConfig` or a mapping of its fields. None: the plain network.
        lineage: Name of another structure that checkpoints of the network were trained in. None: its own.
        preprocessing: The preprocessing, a `Preprocessing` or a mapping of its fields. None: the network's own.
        include_preprocessing: Whether the backbone takes RGB images from 0 to 255 and normalizes them itself.
        dtype: A dtype policy or its name. Default: Keras' global policy.
        **kwargs: `name` and `trainable`, as for any Keras model.

    Raises:
        ValueError: The network is unknown (the message names the closest ones), or an argument does not fit it.

    Example:

    >>> SEBackbone("se_resnet20").pyramid_outputs["P2"].shape[-1]
    64
    """

    def __init__(
        self,
        model: str,
        *,
        image_shape: tuple[int | None, ...] | None = None,
        se: SEConfig | Mapping[str, Any] | None = SEConfig(),
        lineage: str | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        include_preprocessing: bool = True,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        network = NETWORKS[one_of("model", model, NETWORKS)]
        if isinstance(preprocessing, Mapping):
            preprocessing = Preprocessing.from_config(preprocessing)
        network = dataclasses.replace(network, preprocessing=preprocessing or network.preprocessing)
        options = Options(
            include_top=False,
            input_shape=image_shape,
            se=SEConfig(**se) if isinstance(se, Mapping) else se,
            include_preprocessing=include_preprocessing,
        )
        with dtype_policy(dtype):
            built = assemble(model, network, options, lineage=lineage)
        super().__init__(
            inputs=built.input, outputs=built.output, dtype=dtype, **{"name": f"{model}_backbone", **kwargs}
        )
        self.pyramid_outputs = _pyramid(built)
        self.image_shape = tuple(built.input_shape[1:])
        self.data_format = keras.config.image_data_format()
        self._structure = _Structure(model, network, options, lineage)

    @property
    def preprocessing(self) -> Preprocessing:
        """Returns how images are resized, cropped, and normalized."""
        return self._structure.network.preprocessing

    @property
    def include_preprocessing(self) -> bool:
        """Returns whether the backbone normalizes images itself."""
        return self._structure.options.include_preprocessing

    @property
    def network(self) -> Network:
        """Returns the description of the network."""
        return self._structure.network

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._structure.as_config(), "image_shape": self.image_shape}


@dataclasses.dataclass(frozen=True)
class _Structure:
    """The arguments that a backbone is built from; Keras does not track the attributes of a dataclass."""

    model: str
    network: Network
    options: Options
    lineage: str | None

    def as_config(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "se": None if self.options.se is None else dataclasses.asdict(self.options.se),
            "lineage": self.lineage,
            "preprocessing": dataclasses.asdict(self.network.preprocessing),
            "include_preprocessing": self.options.include_preprocessing,
        }


def _pyramid(network: keras.Model) -> dict[str, Any]:
    """Returns the output of each stage under the name of its level: "P2" at 1/4 of the input's size."""
    stages = [layer.name for layer in network.layers if re.fullmatch(r"stage\d", layer.name)]
    first = 2 if "stage5" in stages else 0  # the CIFAR networks begin at full size
    return {f"P{level}": network.get_layer(name).output for level, name in enumerate(stages, first)}
