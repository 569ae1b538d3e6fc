"""Training recipes: named settings of published or measured training runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import keras

from se_keras.errors import check_count, check_number, one_of
from se_keras.training import augment

Schedule = Literal["cosine", "step", "constant"]
Trainable = Literal["all", "head", "without_norms"]
OptimizerName = Literal["sgd", "adamw"]

_LIMITS: dict[str, dict[str, float]] = {
    "weight_decay": {"least": 0},
    "label_smoothing": {"least": 0, "most": 1},
    "average": {"least": 0, "most": 1},
    "clip_norm": {"above": 0},
}
_OPTIONAL = ("average", "clip_norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of training with one optimizer.

    Args:
        epochs: Passes over the training images, at least 1.
        learning_rate: Peak learning rate, for `batch_size` images per step.
        schedule: "cosine" decays to zero within the phase; "step" multiplies by `step_factor`
            every `step_epochs` epochs; "constant" keeps the rate.
        warmup_epochs: Epochs in which the rate rises linearly from zero to the peak; only before "cosine".
        step_epochs: See `schedule`.
        step_factor: See `schedule`.
        trainable: "all" layers; "head", the classifier only; or "without_norms", all layers but
            batch normalization, whose statistics and weights stay as they are.

    Raises:
        ValueError: A number is out of range, or `schedule` or `trainable` is unknown.
    """

    epochs: int
    learning_rate: float
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int = 30
    step_factor: float = 0.1
    trainable: Trainable = "all"

    def __post_init__(self) -> None:
        for name in ("epochs", "step_epochs"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        for name in ("learning_rate", "warmup_epochs", "step_factor"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), least=0))
        one_of("schedule", self.schedule, get_args(Schedule))
        one_of("trainable", self.trainable, get_args(Trainable))
        if self.warmup_epochs and self.schedule != "cosine":
            raise ValueError(
                f"`warmup_epochs` needs schedule='cosine'; received schedule={self.schedule!r} and "
                f"warmup_epochs={self.warmup_epochs}. Leave out the warmup, or make it a phase of its own."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training run: everything except the network and the images.

    Args:
        name: Key in `RECIPES`.
        phases: Successive phases, each with a new optimizer.
        batch_size: Images per step, over all devices.
        optimizer: "sgd", with momentum 0.9, or "adamw".
        nesterov: Whether "sgd" uses Nesterov momentum.
        weight_decay: L2 penalty for "sgd", as papers state it (added to the gradient, so it acts through
            the momentum); decoupled decay for "adamw".
        decays_norms_and_biases: Whether the decay includes batch normalization's weights and all biases.
        label_smoothing: Amount of label smoothing, from 0 to 1.
        average: Decay of an exponential moving average of the weights, which is evaluated and kept. None turns it off.
        clip_norm: Global norm that gradients are clipped to. None turns clipping off.
        transforms: Transforms of each training image, in order.
        batch_transforms: Transforms of each training batch and its one-hot labels.
        source: Source of the recipe.
        evidence: Result of a run with it in this repository, or "not yet run".

    Raises:
        ValueError: A number is out of range, `optimizer` is unknown, there is no phase, or one is no `Phase`.
    """

    name: str
    phases: tuple[Phase, ...]
    batch_size: int
    optimizer: OptimizerName = "sgd"
    nesterov: bool = True
    weight_decay: float = 0.0
    decays_norms_and_biases: bool = True
    label_smoothing: float = 0.0
    average: float | None = None
    clip_norm: float | None = None
    transforms: tuple[augment.Transform, ...] = ()
    batch_transforms: tuple[augment.BatchTransform, ...] = ()
    source: str
    evidence: str = "not yet run"

    def __post_init__(self) -> None:
        phases = tuple(self.phases)
        if not phases or not all(isinstance(phase, Phase) for phase in phases):
            raise ValueError(f"`phases` must be one or more `Phase`; received phases={self.phases!r}.")
        object.__setattr__(self, "phases", phases)
        object.__setattr__(self, "batch_size", check_count("batch_size", self.batch_size))
        one_of("optimizer", self.optimizer, get_args(OptimizerName))
        for name, limits in _LIMITS.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                object.__setattr__(self, name, check_number(name, value, **limits))

    @property
    def epochs(self) -> int:
        """Returns the number of epochs of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    def with_epochs(self, epochs: int) -> Recipe:
        """Returns the same recipe over a different number of epochs; phases, warmup, and steps keep their proportions.

        Args:
            epochs: Number of epochs of all phases together.

        Returns:
            A new recipe.

        Raises:
            ValueError: `epochs` is smaller than the number of phases.
        """
        epochs = check_count("epochs", epochs)
        if epochs < len(self.phases):
            raise ValueError(
                f"Recipe {self.name!r} has {len(self.phases)} phases, each of at least one epoch; received "
                f"epochs={epochs}."
            )
        phases, begin = [], 0
        for index, phase in enumerate(self.phases):
            later = len(self.phases) - 1 - index
            passed = sum(p.epochs for p in self.phases[: index + 1])
            end = min(max(round(epochs * passed / self.epochs), begin + 1), epochs - later)
            share = (end - begin) / phase.epochs
            phases.append(
                dataclasses.replace(
                    phase,
                    epochs=end - begin,
                    warmup_epochs=phase.warmup_epochs * share,
                    step_epochs=max(1, round(phase.step_epochs * share)),
                )
            )
            begin = end
        return dataclasses.replace(self, phases=tuple(phases))

    def with_batch_size(self, batch_size: int) -> Recipe:
        """Returns the recipe at another batch size, with proportional learning rates (Goyal et al., arXiv 1706.02677).

        Args:
            batch_size: Images per step, at least 1.

        Returns:
            A new recipe.

        Raises:
            ValueError: `batch_size` is below 1.
        """
        batch_size = check_count("batch_size", batch_size)
        scale = batch_size / self.batch_size
        phases = tuple(dataclasses.replace(p, learning_rate=p.learning_rate * scale) for p in self.phases)
        return dataclasses.replace(self, batch_size=batch_size, phases=phases)


_PAPER_TRANSFORMS = (
    augment.RandomAreaCrop(),
    augment.RandomFlip(),
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="imagenet",
            phases=(Phase(epochs=100, learning_rate=0.6, schedule="step"),),
            batch_size=1024,
            nesterov=False,
            weight_decay=1e-4,
            transforms=_PAPER_TRANSFORMS,
            source="Hu et al., arXiv 1709.01507, section 4.1",
        ),
        Recipe(
            name="imagenet_released",
            phases=(Phase(epochs=100, learning_rate=0.1, schedule="step"),),
            batch_size=256,
            nesterov=False,
            weight_decay=1e-4,
            transforms=(
                augment.RandomAreaCrop(),
                augment.RandomFlip(),
                augment.RandomRotation(degrees=10),
                augment.PixelJitter(amount=20),
            ),
            source=(
                "README of the authors' repository (hujie-frank/SENet): the released weights; it says "
                '"more epochs" than the paper without a number, so that these are the paper\'s'
            ),
        ),
        Recipe(
            name="imagenet_modern",
            phases=(Phase(epochs=120, learning_rate=0.5, warmup_epochs=5),),
            batch_size=1024,
            weight_decay=5e-5,
            decays_norms_and_biases=False,
            label_smoothing=0.1,
            average=0.9999,
            transforms=(*_PAPER_TRANSFORMS, augment.RandAugment(operations=2, magnitude=6)),
            batch_transforms=(augment.Mixup(alpha=0.2),),
            source=(
                "cosine schedule, label smoothing, mixup and no decay of norms and biases as in He et al., "
                "arXiv 1812.01187; average of the weights as in Inception-v3's training; RandAugment (arXiv "
                "1909.13719) of the magnitude in procedure A3 of Wightman et al., arXiv 2110.00476"
            ),
        ),
        Recipe(
            name="cifar",
            phases=(Phase(epochs=40, learning_rate=0.2, warmup_epochs=2),),
            batch_size=128,
            weight_decay=5e-4,
            decays_norms_and_biases=False,
            transforms=(augment.PadAndCrop(padding=4), augment.RandomFlip()),
            source="padding, crops and flips of He et al., arXiv 1512.03385, section 4.2; cosine in place of steps",
            evidence=(
                "of CIFAR-10's test images, one seed each: after 60 epochs SE-ResNet-20 with reduction 4 92.30 %, "
                "ResNet-20 91.30 %; after 40 with reduction 16 91.23 %, without SE 91.25 % (pretrained/)"
            ),
        ),
        Recipe(
            name="finetune",
            phases=(
                Phase(epochs=3, learning_rate=1e-3, schedule="constant", trainable="head"),
                Phase(epochs=7, learning_rate=1e-4, warmup_epochs=0.5, trainable="without_norms"),
            ),
            batch_size=32,
            optimizer="adamw",
            weight_decay=1e-2,
            decays_norms_and_biases=False,
            label_smoothing=0.1,
            transforms=(augment.RandomAreaCrop(least_area=0.3), augment.RandomFlip()),
            source="head first, then all layers at a tenth of the rate: Keras' guide to transfer learning",
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """Returns the recipe with a given name.

    Args:
        name: A key of `RECIPES`.

    Returns:
        The recipe.

    Raises:
        ValueError: There is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"There is no recipe {name!r}. Available recipes: {', '.join(RECIPES)}.")
    return RECIPES[name]


def make_optimizer(recipe: Recipe, phase: Phase, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Makes the optimizer of a phase.

    Args:
        recipe: The recipe.
        phase: One of its phases.
        steps_per_epoch: Optimizer steps per epoch.

    Returns:
        A new, unbuilt optimizer.
    """
    shared = {
        "learning_rate": _SCHEDULES[phase.schedule](phase, steps_per_epoch),
        "global_clipnorm": recipe.clip_norm,
        "use_ema": recipe.average is not None,
        "ema_momentum": recipe.average if recipe.average is not None else 0.99,
    }
    optimizer = _OPTIMIZERS[recipe.optimizer](recipe, shared)
    if not recipe.decays_norms_and_biases and optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _sgd(recipe: Recipe, shared: dict[str, Any]) -> keras.optimizers.Optimizer:
    # Keras decays outside the momentum, papers through it, which in the long run is a factor of 1 / (1 - 0.9).
    decay = recipe.weight_decay / (1 - 0.9) or None
    return keras.optimizers.SGD(momentum=0.9, nesterov=recipe.nesterov, weight_decay=decay, **shared)


def _adamw(recipe: Recipe, shared: dict[str, Any]) -> keras.optimizers.Optimizer:
    return keras.optimizers.AdamW(weight_decay=recipe.weight_decay, **shared)


_OPTIMIZERS: dict[OptimizerName, Callable[[Recipe, dict[str, Any]], keras.optimizers.Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
}


def _constant(phase: Phase, steps_per_epoch: int) -> float:
    return phase.learning_rate


def _cosine(phase: Phase, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
    steps, warmup = phase.epochs * steps_per_epoch, round(phase.warmup_epochs * steps_per_epoch)
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(phase.learning_rate, steps)
    return keras.optimizers.schedules.CosineDecay(
        phase.learning_rate / warmup,
        max(steps - warmup, 1),
        warmup_target=phase.learning_rate,
        warmup_steps=warmup,
    )


def _steps(phase: Phase, steps_per_epoch: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    bounds = [epoch * steps_per_epoch for epoch in range(phase.step_epochs, phase.epochs, phase.step_epochs)]
    if not bounds:
        return phase.learning_rate
    values = [phase.learning_rate * phase.step_factor**index for index in range(len(bounds) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(bounds, values)


_SCHEDULES: dict[Schedule, Callable[[Phase, int], Any]] = {"cosine": _cosine, "step": _steps, "constant": _constant}
