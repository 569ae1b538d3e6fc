"""Compares networks with and without SE, with the same recipe and seeds, all seeds trained together on JAX.

    python pretrained/study_pairs.py --data cifar10.npz --models se_resnet20 se_resnet56 --seeds 0 1 2 3 4 \\
        --epochs 160 --out pretrained/study-pairs.json
    python pretrained/study_pairs.py --out pretrained/study-pairs.json --table table.md      # only the table

The recipe is `cifar` of `se_keras/training/recipes.py`: its optimizer, schedule, and augmentation, with Keras' own
training step, vectorized over the seeds. Images, augmentation, and whole epochs stay on the device, because a network
this small is limited by the host's launches. Accuracy is measured on all test images with the weights of that epoch: it
selects none.

Finished results are written to the file after every network, and a state next to it every few epochs: the same command
resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import math
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np

import se_keras
from se_keras.files import locked, replacing
from se_keras.training.augment import PadAndCrop, RandomFlip
from se_keras.training.recipes import Recipe, get_recipe, make_optimizer
from se_keras.training.sources import load_sample

PLAIN = "plain"
VARIANTS: dict[str, se_keras.SEConfig | None] = {
    PLAIN: None,
    "se": se_keras.SEConfig(),
    "se_r8": se_keras.SEConfig(reduction=8),
    "se_r4": se_keras.SEConfig(reduction=4),
    "se_max": se_keras.SEConfig(squeeze="max"),
    "se_avgmax": se_keras.SEConfig(squeeze="avgmax"),
    "se_tanh": se_keras.SEConfig(gate_activation="tanh"),
    "se_relu": se_keras.SEConfig(gate_activation="relu"),
    "se_hard_sigmoid": se_keras.SEConfig(gate_activation="hard_sigmoid"),
    "se_pre": se_keras.SEConfig(position="pre"),
    "se_post": se_keras.SEConfig(position="post"),
    "se_identity": se_keras.SEConfig(position="identity"),
    "se_conv3x3": se_keras.SEConfig(position="conv3x3"),
}
EVALUATION_BATCH = 1000
EVALUATE_EVERY = 10
STOPPED = 3

# Stacked over all seeds: trainable, non-trainable, optimizer, and metrics variables, as in Keras' training step.
State = tuple[list[jax.Array], list[jax.Array], list[jax.Array], list[jax.Array]]


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


def read_images(names: Sequence[str]) -> Images:
    """Joins files with x_train, y_train, x_test, and y_test, or parts of them; "sample" is the bundled images."""
    if list(names) == ["sample"]:
        sample = load_sample()
        parts = [{key: getattr(sample, key) for key in ("x_train", "y_train", "x_test", "y_test")}]
    else:
        parts = []
        for name in names:
            with np.load(name) as arrays:
                parts.append({key: arrays[key] for key in arrays.files})
    joined = {}
    for key in ("x_train", "y_train", "x_test", "y_test"):
        found = [part[key] for part in parts if key in part]
        if not found:
            raise ValueError(f"One of the files must hold {key!r}; received {', '.join(names)}.")
        joined[key] = np.concatenate(found)
    digest = hashlib.sha256()
    for key in ("y_train", "y_test"):
        joined[key] = joined[key].reshape(-1).astype(np.int32)
    for array in joined.values():
        digest.update(np.ascontiguousarray(array).tobytes())
    return Images(**{key: jnp.asarray(array) for key, array in joined.items()}, fingerprint=digest.hexdigest()[:16])


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


@dataclasses.dataclass
class Progress:
    """The progress of the seeds of a network.

    Args:
        epoch: Number of completed epochs.
        history: Number of epochs, and accuracy and mean loss of each seed after them.
        seconds: Time spent on all seeds together, including compilation.
    """

    epoch: int = 0
    history: list[tuple[int, list[float], list[float]]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


class Checkpoint:
    """The state of some seeds in a folder, with one file per seed to keep the files small.

    The files of an epoch are complete before older ones are removed, so a complete state survives a kill.

    Args:
        folder: The folder.
        name: Name of the network and of everything else that a state depends on.
        seeds: The seeds.
    """

    def __init__(self, folder: pathlib.Path, name: str, seeds: Sequence[int]) -> None:
        self.folder, self.name, self.seeds = folder, name, seeds

    def _file(self, seed: int, epoch: int) -> pathlib.Path:
        return self.folder / f"{self.name}.seed{seed}.epoch{epoch}.npz"

    def save(self, state: State, progress: Progress) -> None:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        for index, seed in enumerate(self.seeds):
            own = [(epoch, accuracies[index], losses[index]) for epoch, accuracies, losses in progress.history]
            facts = json.dumps([own, progress.seconds])
            with replacing(self._file(seed, progress.epoch), overwrite=True) as temporary:
                np.savez(temporary, facts=facts, **{str(i): leaf[index] for i, leaf in enumerate(leaves)})
        self._remove(keep=progress.epoch)

    def load(self, state: State) -> tuple[State, Progress]:
        """Returns the newest complete state, or the given new one if there is none, and its progress."""
        epochs = [int(path.suffixes[-2].removeprefix(".epoch")) for path in self._files(self.seeds[0])]
        for epoch in sorted(epochs, reverse=True):
            files = [self._file(seed, epoch) for seed in self.seeds]
            if not all(file.exists() for file in files):
                continue
            parts = [self._read(file) for file in files]
            histories, seconds = zip(*(json.loads(str(part["facts"])) for part in parts), strict=True)
            history = [
                (rows[0][0], [row[1] for row in rows], [row[2] for row in rows])
                for rows in zip(*histories, strict=True)
            ]
            leaves, structure = jax.tree.flatten(state)
            stacked = [jnp.stack([part[str(number)] for part in parts]) for number in range(len(leaves))]
            return jax.tree.unflatten(structure, stacked), Progress(epoch, history, max(seconds))
        return state, Progress()

    def remove(self) -> None:
        self._remove(keep=None)
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    @staticmethod
    def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def _files(self, seed: int) -> list[pathlib.Path]:
        return list(self.folder.glob(f"{self.name}.seed{seed}.epoch*.npz"))

    def _remove(self, keep: int | None) -> None:
        for seed in self.seeds:
            for path in self._files(seed):
                if keep is None or path != self._file(seed, keep):
                    path.unlink()


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
) -> tuple[keras.Model, State, Progress]:
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
    state, progress = checkpoint.load(state)
    before = progress.seconds
    run_epoch, measure = epoch_function(model, recipe, images.classes), accuracy_function(model)
    numbers = jnp.asarray(seeds, jnp.int32)
    first = progress.epoch
    for epoch in range(first, recipe.epochs):
        if time.monotonic() > deadline:
            checkpoint.save(state, progress)
            raise OutOfTimeError
        started = time.monotonic()
        state, losses = run_epoch(state, numbers, jnp.int32(epoch), images.x_train, images.y_train)
        jax.block_until_ready(losses)
        progress.epoch, progress.seconds = epoch + 1, before + time.monotonic() - began
        if epoch == first + 1:  # compilation is finished
            one = time.monotonic() - started
            say(f"  {one:.1f} s per epoch, {(recipe.epochs - progress.epoch) * one / 60:.1f} min to go")
        last = progress.epoch == recipe.epochs
        if last or progress.epoch % EVALUATE_EVERY == 0:
            accuracies = measure(state, images.x_test, images.y_test)
            row = (progress.epoch, np.asarray(accuracies).tolist(), np.asarray(losses, np.float64).tolist())
            progress.history.append(row)
            progress.seconds = before + time.monotonic() - began
            shown = " ".join(f"{100 * value:.2f}" for value in row[1])
            say(f"  epoch {progress.epoch}: {shown} %, {progress.seconds:.0f} s")
        if last or progress.epoch % save_every == 0:
            checkpoint.save(state, progress)
    return model, state, progress


def put_back(model: keras.Model, state: State, index: int) -> None:
    """Sets the weights of a model to those of one seed."""
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    for variable, values in zip(variables, [*state[0], *state[1]], strict=True):
        variable.assign(values[index])


def builder(name: str, variant: str, images: Images, recipe: Recipe) -> Callable[[], keras.Model]:
    """Returns a function that builds and compiles a network as `se_keras.training.loop.train` does."""
    steps = len(images.x_train) // recipe.batch_size
    if not steps:
        raise ValueError(
            f"A batch takes {recipe.batch_size} images, but there are {len(images.x_train)} for training. Pass more "
            "images."
        )

    def build() -> keras.Model:
        model = se_keras.create_model(name, se=VARIANTS[variant], classes=images.classes)
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
        model.compile(make_optimizer(recipe, recipe.phases[0], steps), loss)
        return model

    return build


def facts_of(recipe: Recipe, images: Images, precision: str) -> dict[str, Any]:
    """Returns the facts that results in one table must share."""
    return {
        "recipe": recipe.name,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.phases[0].learning_rate,
        "weight_decay": recipe.weight_decay,
        "precision": precision,
        "training_images": len(images.x_train),
        "test_images": len(images.x_test),
        "data": images.fingerprint,
    }


def read_results(path: pathlib.Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Reads the results of earlier commands, if any; raises ValueError for those of another study."""
    if not path.exists():
        return {"facts": facts, "runs": {}}
    found = json.loads(path.read_text("utf-8"))
    then = found["facts"]
    differences = [f"{key} was {then.get(key)!r}, is {facts[key]!r}" for key in facts if then.get(key) != facts[key]]
    if differences:
        raise ValueError(f"{os.fspath(path)!r} holds another study ({'; '.join(differences)}). Pass another --out.")
    return found


def write_results(path: pathlib.Path, found: dict[str, Any]) -> None:
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def rows_of(model: keras.Model, progress: Progress, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Returns the rows of the file, one per seed."""
    device = jax.devices()[0]
    shared = {
        "parameters": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "seconds_of_all": round(progress.seconds, 1),
        "trained_together": len(seeds),
        "device": device.device_kind if device.platform != "cpu" else f"{os.cpu_count()} cores, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "packages": {package.__name__: package.__version__ for package in (se_keras, keras, jax)},
    }
    return {
        str(seed): {
            "accuracy": progress.history[-1][1][index],
            "loss": _finite(progress.history[-1][2][index]),
            "history": [[epoch, accuracies[index]] for epoch, accuracies, _ in progress.history],
            **shared,
        }
        for index, seed in enumerate(seeds)
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(found: dict[str, Any]) -> str:
    """Returns a Markdown table of mean and standard deviation over the seeds; differences pair equal seeds."""
    facts = found["facts"]
    lines = [
        f"{facts['epochs']} epochs of the recipe `{facts['recipe']}`, {facts['training_images']:,} training and "
        f"{facts['test_images']:,} test images, {facts['precision']}.",
        "",
        "| Network | Variant | Parameters | Seeds | Accuracy, % | Over plain, points | Seconds, all seeds |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    for key, rows in found["runs"].items():
        network, variant = key.split("/")
        values = {seed: 100 * row["accuracy"] for seed, row in rows.items()}
        plain = {seed: 100 * row["accuracy"] for seed, row in found["runs"].get(f"{network}/{PLAIN}", {}).items()}
        paired = [values[seed] - plain[seed] for seed in values if seed in plain]
        over = "" if variant == PLAIN or not paired else _mean_and_deviation(paired, sign="+")
        seconds = sum(row["seconds_of_all"] / row["trained_together"] for row in rows.values())
        lines.append(
            f"| {network} | `{variant}` | {next(iter(rows.values()))['parameters']:,} | {len(rows)} "
            f"| {_mean_and_deviation(list(values.values()))} | {over} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def _mean_and_deviation(values: Sequence[float], *, sign: str = "") -> str:
    mean = f"{statistics.mean(values):{sign}.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", help="npz file, or its parts in order; 'sample' is the bundled images")
    parser.add_argument("--models", nargs="+", default=["se_resnet20"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[PLAIN, "se"], metavar="VARIANT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=160)
    parser.add_argument("--together", type=int, help="number of seeds to train at once (default: all)")
    parser.add_argument("--precision", default="mixed_bfloat16", help="a Keras dtype policy")
    parser.add_argument("--save-every", type=int, default=10, metavar="EPOCHS")
    parser.add_argument("--minutes", type=float, default=math.inf, help="minutes after which to save and stop")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="JSON file of the results")
    parser.add_argument("--weights", type=pathlib.Path, help="folder for the final weights of each seed")
    parser.add_argument("--table", type=pathlib.Path, help="Markdown file for the table")
    return parser.parse_args()


def study(options: argparse.Namespace) -> None:
    """Trains the networks and seeds that are missing in the results file.

    Raises:
        OutOfTimeError: The time limit is reached.
    """
    deadline = time.monotonic() + 60 * options.minutes
    keras.config.set_dtype_policy(options.precision)
    images, recipe = read_images(options.data), get_recipe("cifar").with_epochs(options.epochs)
    facts = facts_of(recipe, images, options.precision)
    found = read_results(options.out, facts)
    states = options.out.with_name(f"{options.out.stem}.state")
    study_name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
    for name in options.models:
        for variant in options.variants:
            done = found["runs"].get(f"{name}/{variant}", {})
            missing = [seed for seed in options.seeds if str(seed) not in done]
            together = options.together or max(len(missing), 1)
            for seeds in (missing[begin : begin + together] for begin in range(0, len(missing), together)):
                print(f"{name}, {variant}, seeds {' '.join(map(str, seeds))}", flush=True)
                checkpoint = Checkpoint(states, f"{name}.{variant}.{study_name}", seeds)
                model, state, progress = train_seeds(
                    builder(name, variant, images, recipe),
                    recipe,
                    images,
                    seeds,
                    checkpoint=checkpoint,
                    save_every=options.save_every,
                    deadline=deadline,
                    say=lambda line: print(line, flush=True),
                )
                for index, seed in enumerate(seeds) if options.weights else ():
                    put_back(model, state, index)
                    with replacing(
                        options.weights / f"{name}.{variant}.seed{seed}.weights.h5", overwrite=True
                    ) as temporary:
                        model.save_weights(temporary)
                found["runs"].setdefault(f"{name}/{variant}", {}).update(rows_of(model, progress, seeds))
                write_results(options.out, found)
                checkpoint.remove()


def main() -> int:
    options = arguments()
    code = 0
    if options.data:
        try:
            with locked(options.out.with_name(f".{options.out.name}.lock"), options.out):
                study(options)
        except OutOfTimeError:
            print("The time limit is reached; the state is saved. Run the same command to resume.")
            code = STOPPED
    if options.out.exists():
        text = table(json.loads(options.out.read_text("utf-8")))
        print(text)
        if options.table:
            with replacing(options.table, overwrite=True) as temporary:
                temporary.write_text(text + "\n", "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
