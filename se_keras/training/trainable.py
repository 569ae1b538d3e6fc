"""Which layers a phase trains: those that it names, but for the ones that are frozen in the model itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from se_keras.surgery.outputs import scores_of
from se_keras.training.recipes import Phase, Recipe

Flags = list[tuple[keras.layers.Layer, bool]]


def flags_of(model: keras.layers.Layer, *, above: bool = True) -> Flags:
    """Which layers are trainable, also those of models inside the model.

    Args:
        model: The model, or a layer of it.
        above: Whether what holds it is trainable.

    Returns:
        The model, the models in it and their layers, each before what it holds; a layer of a frozen model is frozen.
    """
    trainable = above and model.trainable
    held = model.layers if isinstance(model, keras.Model) else []
    return [(model, trainable), *(pair for layer in held for pair in flags_of(layer, above=trainable))]


def set_flags(flags: Flags) -> None:
    """Makes layers trainable or not.

    Args:
        flags: In the order of `flags_of`: Keras passes a model's flag on to what it holds.
    """
    for layer, trainable in flags:
        layer.trainable = trainable


def flags_in(phase: Phase, flags: Flags) -> Flags:
    """What is trainable in a phase.

    Args:
        phase: The phase.
        flags: What `flags_of` gave before the training; what is frozen there stays frozen.

    Returns:
        The same layers with their flags for the phase.
    """
    head = next(layer for layer, _ in reversed(flags) if layer.weights and not isinstance(layer, keras.Model))
    return [
        (layer, isinstance(layer, keras.Model) or (trainable and _learns(layer, phase, head)))
        for layer, trainable in flags
    ]


def _learns(layer: keras.layers.Layer, phase: Phase, head: keras.layers.Layer) -> bool:
    if phase.trainable == "head":
        return layer is head
    return phase.trainable == "all" or not isinstance(layer, keras.layers.BatchNormalization)


def check_phases(model: keras.Model, recipe: Recipe) -> None:
    """Refuses a recipe with a phase in which there would be nothing to train.

    Args:
        model: The model, as it was given.
        recipe: The recipe.

    Raises:
        ValueError: All that a phase trains is frozen.
    """
    flags = flags_of(model)
    for number, phase in enumerate(recipe.phases, 1):
        learning = [layer for layer, trainable in flags_in(phase, flags) if trainable and layer.weights]
        if all(isinstance(layer, keras.Model) for layer in learning):
            raise ValueError(
                f"Phase {number} of recipe {recipe.name!r} trains {_NAMED[phase.trainable]}, which is frozen "
                f"(trainable=False) in {model.name!r}. Choose a recipe whose phases train all layers, such as 'cifar' "
                "or 'imagenet_modern', or set `trainable` of these layers to True."
            )


_NAMED = {"head": "the classifier alone", "without_norms": "all layers but batch norm", "all": "all layers"}


@contextlib.contextmanager
def as_given(model: keras.Model, flags: Flags) -> Iterator[None]:
    """Gives a model that is in training the flags that it came with, to save it for others to use.

    Args:
        model: The model.
        flags: What `flags_of` gave before the training.

    Yields:
        Nothing; afterwards the model is in training again.
    """
    now, compiled = flags_of(model), model.compiled
    set_flags(flags)
    model.compiled = False  # the optimiser knows the variables of one phase only; loading it with others would warn
    try:
        yield
    finally:
        set_flags(now)
        model.compiled = compiled


def check_scores(model: keras.Model) -> None:
    """Refuses outputs of which categorical cross-entropy makes no sense, which would be trained without a word.

    Args:
        model: The model to train.

    Raises:
        ValueError: It ends in sigmoids or logits.
    """
    kind = scores_of(model).kind
    if kind not in ("probabilities", "output"):
        raise ValueError(
            f"A model to train must end in a softmax over its classes, also for two; the output of {model.name!r} is "
            f"{kind.replace('_', ' ')}. Build it with classifier_activation='softmax' and an output for each class."
        )
