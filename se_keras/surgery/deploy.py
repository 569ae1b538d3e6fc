"""The inference-only form of a model: the same answers from less work."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from se_keras.surgery.constant_gates import constant_gates
from se_keras.surgery.dead_blocks import dead_blocks
from se_keras.surgery.fold import fold_batch_norms
from se_keras.surgery.graph import Graph, build_model, read_graph
from se_keras.surgery.hoist import hoist_squeezes
from se_keras.surgery.stage import open_blocks, stage_pools

# Layers that hand on their input at inference.
TRAINING_ONLY = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
)


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of one layer.

    Args:
        layer: Its name.
        action: "folded" (a batch norm, into `target`), "hoisted" (a squeeze, before `target`),
            "removed" (it does nothing at inference) or "kept" (for the reason in `detail`).
        detail: The name of the other layer, or the reason.
    """

    layer: str
    action: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.layer}" + (f": {self.detail}" if self.detail else "")


class Deployment(NamedTuple):
    """What `deploy` gives: the new model, and what became of each batch norm, SE block and training-only layer."""

    model: keras.Model
    changes: tuple[Change, ...]


def deploy(model: keras.Model) -> Deployment:
    """Rewrites a model for inference; it answers as `model(x, training=False)` does, up to rounding.

    Batch norm goes into the convolution or dense layer before it; the squeeze of an SE block
    reads the narrow input of the 1x1 convolution before it; dropout and augmentation go;
    nested models are laid open. Preprocessing stays. Each of these happens only where it is
    exact and saves work; what was left alone is listed with the reason. Works on every backend.

    Reference: arXiv 1709.01507v4, equations 2 to 4: the squeeze is a mean, so it commutes with
    whatever is affine at each position.

    Args:
        model: A functional model, or a sequential one that has been built; with weights of any
            dtype. It is not changed and shares nothing with the result.

    Returns:
        The new functional model of the same name, inputs and outputs, and the changes. Do not
        train it: its batch norm is gone.

    Raises:
        ValueError: A subclassed model, or a sequential one that has no input shape yet.

    Example:

    >>> deployed, changes = deploy(SEResNet50(weights=None))
    >>> sum(change.action == "hoisted" for change in changes)
    16
    """
    graph, removed = _without_training_only(read_graph(model))
    graph, folded, not_folded = fold_batch_norms(graph)
    graph, hoisted, not_hoisted = hoist_squeezes(graph)
    changes = [
        *(Change(name, "removed") for name in removed),
        *(Change(norm.name, "folded", layer.name) for norm, layer in folded),
        *(Change(se.name, "hoisted", layer.name) for se, layer in hoisted),
        *(Change(call.name, "kept", reason) for call, reason in [*not_folded, *not_hoisted]),
    ]
    return Deployment(build_model(graph), tuple(changes))


def _without_training_only(graph: Graph) -> tuple[Graph, list[str]]:
    types = tuple(getattr(layers, name) for name in TRAINING_ONLY if hasattr(layers, name))
    calls = [
        call
        for call in graph.calls
        if type(call.operation) in types
        and call.inputs[0].dtype == call.outputs[0].dtype  # augmentation may turn integers into floats
    ]
    aliases = {id(call.outputs[0]): call.inputs[0] for call in calls}
    return graph.rewritten({call: [] for call in calls}, aliases), [call.name for call in calls]


def in_float32(model: keras.Model) -> keras.Model:
    """The same model with every layer computing in float32, whatever its dtype policy.

    Args:
        model: A functional model, or a sequential one that has been built.

    Returns:
        A new functional model with the same weights.

    Raises:
        ValueError: As `deploy`.
    """
    return build_model(read_graph(model), dtype="float32")


def stage_squeezes(model: keras.Model, names: Collection[str] | None = None) -> keras.Model:
    """Takes means over a whole map as exact average pools of small windows.

    A GPU may add the positions of a map in half precision, where a sum above 65,504 is
    infinite: for 56x56 positions a mean of 21 is enough. The sums of small windows stay small.

    Args:
        model: A functional model, or a sequential one that has been built.
        names: Which `SqueezeExcite` and `GlobalAveragePooling2D` layers; None: all. Squeezes
            other than the mean, and maps of at most 8x8 or open size, stay as they are.

    Returns:
        A new functional model with the same answers up to rounding.

    Raises:
        ValueError: As `deploy`.
    """
    graph, opened = open_blocks(read_graph(model), names)
    pools = None if names is None else {*names, *opened}
    return build_model(stage_pools(graph, pools))


def without_dead_blocks(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Turns the gates of SE blocks whose hidden units are all off into constants, as quantisation would anyway.

    Args:
        model: A functional model, or a sequential one that has been built.
        images: Images like those the model will see, in the scale of its input.

    Returns:
        A new functional model that answers the same on these images; `model` itself where no
        block is dead.

    Raises:
        ValueError: As `deploy`.
    """
    gates = dead_blocks(model, images)
    return build_model(constant_gates(read_graph(model), gates)) if gates else model
