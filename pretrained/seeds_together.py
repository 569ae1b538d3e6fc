"""Training of several seeds of a network at once on JAX, with everything on the device.

`se_keras.training.train` reads and augments images on the host, one model at a time; a network as small as those of the
study would wait for it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from seed_states import Checkpoint, Measurements, State

from se_keras.training.augment import PadAndCrop, RandomFlip
from se_keras.training.recipes import Recipe

EVALUATION_BATCH = 1000
EVALUATE_EVERY = 10


@dataclasses.dataclass(frozen=True)
class Images:
    """Labeled images on the device.

    Args:
        x_train: RGB images, uint8, 0 to 255, shape (n, height, width, 3).
        y_train: Integer labels, int32, shape (n,).
        x_test: As `x_train`.
        y_test: As `y_train`.
        fingerprint: A string that changes when an image or a label changes.
    """

    x_train: jax.Array
    y_train: jax.Array
    x_test: jax.Array
    y_test: jax.Array
    fingerprint: str

    @property
    def classes(self) -> int:
        return int(self.y_train.max()) + 1


def pad_and_crop(step: PadAndCrop, key: jax.Array, images: jax.Array) -> jax.Array:
    """Applies `PadAndCrop` to a batch on the device."""
    height, width, channels = images.shape[1:]
    border = (step.padding, step.padding)
    padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * step.padding + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def random_flip(step: RandomFlip, key: jax.Array, images: jax.Array) -> jax.Array:
    """Applies `RandomFlip` to a batch on the device."""
    flipped = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


ON_DEVICE: dict[type, Callable[[Any, jax.Array, jax.Array], jax.Array]] = {
    PadAndCrop: pad_and_crop,
    RandomFlip: random_flip,
}


def augmenter(recipe: Recipe) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns a function that applies the recipe's transforms to a batch of uint8 images on the device."""
    foreign = [type(step).__name__ for step in recipe.transforms if type(step) not in ON_DEVICE]
    if foreign or recipe.batch_transforms or recipe.average is not None or len(recipe.phases) != 1:
        raise ValueError(
            f"The recipe must have one phase, no average of the weights, and only transforms among "
            f"{', '.join(kind.__name__ for kind in ON_DEVICE)}; received {recipe.name!r}."
        )

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        for number, step in enumerate(recipe.transforms):
            images = ON_DEVICE[type(step)](step, jax.random.fold_in(key, number), images)
        return images

    return augment


def initial_state(build: Callable[[], keras.Model], seeds: Sequence[int]) -> tuple[keras.Model, State]:
    """Returns a compiled model, and the stacked variables of one such model per seed.

    Args:
        build: Returns a compiled model, with weights drawn from Keras' global seed.
        seeds: The seeds.

    Returns:
        The last model, for its structure, and the state for `epoch_function`, with a leading axis for the seeds.
    """
    states = []
    for seed in seeds:
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(seed)
        model = build()
        model.optimizer.build(model.trainable_variables)
        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        states.append(tuple([np.asarray(variable.value) for variable in group] for group in groups))
    return model, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def epoch_function(model: keras.Model, recipe: Recipe, classes: int) -> Callable[..., tuple[State, jax.Array]]:
    """Returns a function that runs one epoch of all seeds.

    Args:
        model: A compiled model.
        recipe: The recipe; its batch size and transforms are used. The optimizer is the model's.
        classes: Number of classes.

    Returns:
        A function of the state (which is consumed), the seeds (int32), the number of the epoch, images
        (uint8), and labels (int32) that returns the new state and the mean loss of each seed. The order and
        augmentation depend on the seed and the epoch alone; images that do not fill a whole batch are left out of
        that epoch.
    """
    augment, train_step = augmenter(recipe), jax.vmap(model.train_step)

    def run(
        state: State, seeds: jax.Array, epoch: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[State, jax.Array]:
        steps = len(images) // recipe.batch_size
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), epoch))(seeds)
        orders = jax.vmap(lambda key: jax.random.permutation(key, len(images)))(keys)
        orders = orders[:, : steps * recipe.batch_size].reshape(len(seeds), steps, recipe.batch_size)

        def step(state: State, number: jax.Array) -> tuple[State, jax.Array]:
            chosen = orders[:, number]
            drawn = jax.vmap(lambda key: jax.random.fold_in(key, 1 + number))(keys)
            batch = jax.vmap(augment)(drawn, images[chosen]), jax.nn.one_hot(labels[chosen], classes)
            logs, state = train_step(state, batch)
            return state, logs["loss"]

        # Keras' loss is the mean since its metric was reset.
        state = (*state[:3], jax.tree.map(jnp.zeros_like, state[3]))
        state, losses = jax.lax.scan(step, state, jnp.arange(steps))
        return state, losses[-1]

    return jax.jit(run, donate_argnums=0)


def accuracy_function(model: keras.Model) -> Callable[[State, jax.Array, jax.Array], jax.Array]:
    """Returns a function of the state, images, and labels that returns the accuracy of each seed, a fraction of 1."""

    def run(state: State, images: jax.Array, labels: jax.Array) -> jax.Array:
        count = len(images)
        batch = min(EVALUATION_BATCH, count)
        rest = -count % batch
        images = jnp.pad(images, ((0, rest), (0, 0), (0, 0), (0, 0))).reshape(-1, batch, *images.shape[1:])
        labels = jnp.pad(labels, (0, rest), constant_values=-1).reshape(-1, batch)  # -1 is never correct

        def right(trainable: list[jax.Array], others: list[jax.Array]) -> jax.Array:
            def of_batch(part: tuple[jax.Array, jax.Array]) -> jax.Array:
                answers, _ = model.stateless_call(trainable, others, part[0], training=False)
                return jnp.sum(jnp.argmax(answers, -1) == part[1])

            return jnp.sum(jax.lax.map(of_batch, (images, labels)))

        return jax.vmap(right)(state[0], state[1]) / count

    return jax.jit(run)


class OutOfTimeError(RuntimeError):
    """An error at the command's time limit; the state is saved."""


def train_seeds(
    build: Callable[[], keras.Model],
    recipe: Recipe,
    images: Images,
    seeds: Sequence[int],
    *,
    checkpoint: Checkpoint,
    save_every: int = 10,
    deadline: float = math.inf,
    say: Callable[[str], None] = print,
) -> tuple[keras.Model, State, Measurements]:
    """Trains one network with several seeds at once, or resumes the training.

    Args:
        build: Returns a compiled model.
        recipe: The recipe.
        images: The images to train and test on.
        seeds: The seeds.
        checkpoint: The state, kept until the end.
        save_every: Epochs between saves.
        deadline: Time at which to stop, on the clock of `time.monotonic`.
        say: Reports every evaluation.

    Returns:
        The model, the last state, and the measurements.

    Raises:
        OutOfTimeError: The deadline has passed.
    """
    began = time.monotonic()
    model, state = initial_state(build, seeds)
    state, measured = checkpoint.load(state)
    before = measured.seconds
    run_epoch, measure = epoch_function(model, recipe, images.classes), accuracy_function(model)
    numbers = jnp.asarray(seeds, jnp.int32)
    first = measured.epoch
    for epoch in range(first, recipe.epochs):
        if time.monotonic() > deadline:
            checkpoint.save(state, measured)
            raise OutOfTimeError
        started = time.monotonic()
        state, losses = run_epoch(state, numbers, jnp.int32(epoch), images.x_train, images.y_train)
        jax.block_until_ready(losses)
        measured.epoch, measured.seconds = epoch + 1, before + time.monotonic() - began
        if epoch == first + 1:  # compilation is finished
            one = time.monotonic() - started
            say(f"  {one:.1f} s per epoch, {(recipe.epochs - measured.epoch) * one / 60:.1f} min to go")
        last = measured.epoch == recipe.epochs
        if last or measured.epoch % EVALUATE_EVERY == 0:
            accuracies = measure(state, images.x_test, images.y_test)
            row = (measured.epoch, np.asarray(accuracies).tolist(), np.asarray(losses, np.float64).tolist())
            measured.history.append(row)
            measured.seconds = before + time.monotonic() - began
            shown = " ".join(f"{100 * value:.2f}" for value in row[1])
            say(f"  epoch {measured.epoch}: {shown} %, {measured.seconds:.0f} s")
        if last or measured.epoch % save_every == 0:
            checkpoint.save(state, measured)
    return model, state, measured


def put_back(model: keras.Model, state: State, index: int) -> None:
    """Sets the weights of a model to those of one seed."""
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    for variable, values in zip(variables, [*state[0], *state[1]], strict=True):
        variable.assign(values[index])
