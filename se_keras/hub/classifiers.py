"""KerasHub's image classifier with the classifier of this package's networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import keras_hub

from se_keras.class_names import get_class_names, set_class_names
from se_keras.hub.backbones import SEBackbone
from se_keras.hub.policy import dtype_policy
from se_keras.hub.preprocessors import SEImageClassifierPreprocessor


@keras.saving.register_keras_serializable("se_keras")
class SEImageClassifier(keras_hub.models.ImageClassifier):
    """A KerasHub image classifier with the layers and weight names of `create_model`.

    `fit`, `evaluate`, and `predict` take photos, which the preprocessor resizes. Calling the classifier, exporting it,
    and the functions of this package skip the preprocessor, and take images of the input size.

    Args:
        backbone: The network without its classifier.
        num_classes: Number of classes, at least 1.
        preprocessor: A KerasHub preprocessor, a layer, or None for images of the input size.
        activation: Activation of the predictions. None returns logits.
        dropout: Dropout rate before the classifier, at least 0 and below 1. None: the network's own.
        class_names: Class names, in the order of the outputs, for a backbone that includes its preprocessing.
        **kwargs: `name` and `compile`, as for any KerasHub task.

    Raises:
        ValueError: The class names do not fit the outputs, or the dense layers of a network need a fixed input size.
    """

    backbone_cls = SEBackbone
    preprocessor_cls = SEImageClassifierPreprocessor

    def __init__(
        self,
        backbone: SEBackbone,
        num_classes: int,
        preprocessor: Any = None,
        activation: Any = "softmax",
        *,
        dropout: float | None = None,
        class_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        dropout = backbone.network.dropout if dropout is None else dropout
        with dtype_policy(backbone.dtype_policy):
            outputs = backbone.network.head(
                backbone.output, classes=num_classes, activation=activation, dropout=dropout
            )
        # `compile`, which the constructor of `Task` calls, reads the activation.
        self.backbone, self.preprocessor, self.activation = backbone, preprocessor, activation
        keras_hub.models.Task.__init__(self, inputs=backbone.input, outputs=outputs, **kwargs)
        self.num_classes, self.dropout = num_classes, dropout
        if class_names:
            set_class_names(self, class_names)

    def get_config(self) -> dict[str, Any]:
        return {
            **keras_hub.models.Task.get_config(self),
            "num_classes": self.num_classes,
            "activation": keras.activations.serialize(keras.activations.get(self.activation)),
            "dropout": self.dropout,
            "class_names": list(get_class_names(self)),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SEImageClassifier:
        """Builds a classifier, without its class names if `num_classes` was changed, as `from_preset` can do."""
        if len(config.get("class_names", ())) not in (0, 2 if config["num_classes"] == 1 else config["num_classes"]):
            config = {**config, "class_names": ()}
        return super().from_config(config)
