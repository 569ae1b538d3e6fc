"""The layers that a phase trains: those it names, except the ones that are frozen in the model itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras

from se_keras.surgery.outputs import scores_of
from se_keras.training.recipes import Phase, Recipe, Trainable

Flags = list[tuple[keras.layers.Layer, bool]]


def flags_of(model: keras.layers.Layer, *, above: bool = True) -> Flags:
    """Returns each layer and whether it is trainable, including the layers of models inside the model.

    Args:
        model: The model, or a layer of it.
        above: Whether the model that contains it is trainable.

    Returns:
        The model, the models in it, and their layers, each before its contents; a layer of a frozen model is frozen.
    """
    trainable = above and model.trainable
    held = model.layers if isinstance(model, keras.Model) else []
    return [(model, trainable), *(pair for layer in held for pair in flags_of(layer, above=trainable))]


def set_flags(flags: Flags) -> None:
    """Sets whether layers are trainable.

    Args:
        flags: The flags, in the order of `flags_of`: Keras passes a model's flag on to its layers.
    """
    for layer, trainable in flags:
        layer.trainable = trainable


def flags_in(phase: Phase, flags: Flags) -> Flags:
    """Returns whether layers are trainable in a phase.

    Args:
        phase: The phase.
        flags: The result of `flags_of` before training; layers frozen there stay frozen.

    Returns:
        The same layers with their flags for the phase.
    """
    head = next(layer for layer, _ in reversed(flags) if layer.weights and not isinstance(layer, keras.Model))
    return [
        (layer, isinstance(layer, keras.Model) or (trainable and _LEARNS[phase.trainable](layer, head)))
        for layer, trainable in flags
    ]


_LEARNS: dict[Trainable, Callable[[keras.layers.Layer, keras.layers.Layer], bool]] = {
    "all": lambda layer, head: True,
    "head": lambda layer, head: layer is head,
    "without_norms": lambda layer, head: not isinstance(layer, keras.layers.BatchNormalization),
}
"""Whether a layer learns, given the layer and the classifier."""


def check_phases(model: keras.Model, recipe: Recipe) -> None:
    """Checks whether each phase of a recipe has something to train.

    Args:
        model: The model, as the user gave it.
        recipe: The recipe.

    Raises:
        ValueError: All layers that a phase trains are frozen.
    """
    flags = flags_of(model)
    for number, phase in enumerate(recipe.phases, 1):
        learning = [layer for layer, trainable in flags_in(phase, flags) if trainable and layer.weights]
        if all(isinstance(layer, keras.Model) for layer in learning):
            raise ValueError(
                f"Phase {number} of recipe {recipe.name!r} trains {_NAMED[phase.trainable]}, but these are frozen "
                f"(trainable=False) in {model.name!r}. Choose a recipe whose phases train all layers, such as 'cifar' "
                "or 'imagenet_modern', or set `trainable` of these layers to True."
            )


_NAMED = {"head": "only the classifier", "without_norms": "all layers but batch normalization", "all": "all layers"}


@contextlib.contextmanager
def as_given(model: keras.Model, flags: Flags) -> Iterator[None]:
    """Temporarily restores the original flags of a model during training, to save it with them.

    Args:
        model: The model.
        flags: The result of `flags_of` before training.

    Yields:
        Nothing. Afterwards, the model has the flags of its training again.
    """
    now, compiled, optimizer = flags_of(model), model.compiled, model.optimizer
    set_flags(flags)
    # The optimizer has the variables of one phase only: loading it with others would warn.
    model.compiled, model.optimizer = False, None
    try:
        yield
    finally:
        set_flags(now)
        model.compiled, model.optimizer = compiled, optimizer


def check_scores(model: keras.Model) -> None:
    """Checks whether categorical cross-entropy suits a model's output; other outputs would train without an error.

    Args:
        model: The model to train.

    Raises:
        ValueError: The model ends in sigmoids or logits.
    """
    kind = scores_of(model).kind
    if kind not in ("probabilities", "output"):
        raise ValueError(
            f"A model to train must end in a softmax over its classes, even for two; the output of {model.name!r} is "
            f"{kind.replace('_', ' ')}. Build it with classifier_activation='softmax' and one output per class."
        )
