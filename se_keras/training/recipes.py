"""Training recipes: named settings of published or measured training runs."""

from __future__ import annotations

import dataclasses
from typing import Literal

import keras

from se_keras.errors import check_count
from se_keras.training import augment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of training with one optimizer.

    Args:
        epochs: Passes over the training images, at least 1.
        learning_rate: Peak learning rate, for `batch_size` images per step.
        schedule: "cosine" decays to zero within the phase; "step" multiplies by `step_factor`
            every `step_epochs` epochs; "constant" keeps the rate.
        warmup_epochs: Epochs in which the rate rises linearly from zero to the peak.
        step_epochs: See `schedule`.
        step_factor: See `schedule`.
        trainable: "all" layers; "head", the classifier only; or "without_norms", all layers but
            batch normalization, whose statistics and weights stay as they are.
    """

    epochs: int
    learning_rate: float
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int = 30
    step_factor: float = 0.1
    trainable: Literal["all", "head", "without_norms"] = "all"

    def __post_init__(self) -> None:
        for name in ("epochs", "step_epochs"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))


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
    """

    name: str
    phases: tuple[Phase, ...]
    batch_size: int
    optimizer: Literal["sgd", "adamw"] = "sgd"
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
        object.__setattr__(self, "batch_size", check_count("batch_size", self.batch_size))

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
    rate = _schedule(phase, steps_per_epoch)
    shared = {
        "learning_rate": rate,
        "global_clipnorm": recipe.clip_norm,
        "use_ema": recipe.average is not None,
        "ema_momentum": recipe.average if recipe.average is not None else 0.99,
    }
    if recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(weight_decay=recipe.weight_decay, **shared)
    else:
        # Keras decays outside the momentum, papers through it, which in the long run is a factor of 1 / (1 - 0.9).
        optimizer = keras.optimizers.SGD(
            momentum=0.9, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay / (1 - 0.9) or None, **shared
        )
    if not recipe.decays_norms_and_biases and optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _schedule(phase: Phase, steps_per_epoch: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    schedules = keras.optimizers.schedules
    steps, warmup = phase.epochs * steps_per_epoch, round(phase.warmup_epochs * steps_per_epoch)
    if phase.schedule == "cosine":
        if not warmup:
            return schedules.CosineDecay(phase.learning_rate, steps)
        return schedules.CosineDecay(
            phase.learning_rate / warmup,
            max(steps - warmup, 1),
            warmup_target=phase.learning_rate,
            warmup_steps=warmup,
        )
    if phase.schedule == "step":
        bounds = [epoch * steps_per_epoch for epoch in range(phase.step_epochs, phase.epochs, phase.step_epochs)]
        if bounds:
            values = [phase.learning_rate * phase.step_factor**index for index in range(len(bounds) + 1)]
            return schedules.PiecewiseConstantDecay(bounds, values)
    return phase.learning_rate
