"""Compares networks with and without SE, with the same recipe and seeds, all seeds trained together on JAX.

    python pretrained/study_pairs.py --data cifar10.npz --models se_resnet20 se_resnet56 --seeds 0 1 2 3 4 \\
        --epochs 160 --out pretrained/study-pairs.json
    python pretrained/study_pairs.py --out pretrained/study-pairs.json --table table.md      # only the table
    python pretrained/study_pairs.py --join se.json plain.json --out pretrained/study-pairs.json  # of several commands

The recipe is `cifar` of `se_keras/training/recipes.py`: its optimizer, schedule, and augmentation, with Keras' own
training step, vectorized over the seeds. Images, augmentation, and whole epochs stay on the device, because a network
this small is limited by the host's launches. Accuracy is measured on all test images with the weights of that epoch: it
selects none.

Finished results are written to the file after every network, and a state next to it every few epochs: the same command
resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import math
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
from seed_states import Checkpoint, Measurements
from seeds_together import Images, OutOfTimeError, put_back, train_seeds
from study_table import PLAIN, table

import se_keras
from se_keras.files import locked, replacing
from se_keras.training.recipes import Recipe, get_recipe, make_optimizer
from se_keras.training.sources import load_sample

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
STOPPED = 3


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


def joined(paths: Sequence[pathlib.Path], found: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the results of several files, which must be of the same study, with those found before."""
    for path in paths:
        facts = found["facts"] if found else json.loads(path.read_text("utf-8"))["facts"]
        found = found or {"facts": facts, "runs": {}}
        for name, rows in read_results(path, facts)["runs"].items():
            found["runs"].setdefault(name, {}).update(rows)
    return found


def write_results(path: pathlib.Path, found: dict[str, Any]) -> None:
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def rows_of(model: keras.Model, measured: Measurements, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Returns the rows of the file, one per seed."""
    device = jax.devices()[0]
    shared = {
        "parameters": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "seconds_of_all": round(measured.seconds, 1),
        "trained_together": len(seeds),
        "device": device.device_kind if device.platform != "cpu" else f"{os.cpu_count()} cores, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "packages": {package.__name__: package.__version__ for package in (se_keras, keras, jax)},
    }
    return {
        str(seed): {
            "accuracy": measured.history[-1][1][index],
            "loss": _finite(measured.history[-1][2][index]),
            "history": [[epoch, accuracies[index]] for epoch, accuracies, _ in measured.history],
            **shared,
        }
        for index, seed in enumerate(seeds)
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", help="npz file, or its parts in order; 'sample' is the bundled images")
    parser.add_argument("--join", nargs="+", type=pathlib.Path, default=[], help="results of other commands to add")
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
    options = parser.parse_args()
    missing = [os.fspath(path) for path in options.join if not path.is_file()]
    if missing:
        parser.error(f"--join takes files with results; these are not files: {', '.join(missing)}")
    return options


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
                model, state, measured = train_seeds(
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
                found["runs"].setdefault(f"{name}/{variant}", {}).update(rows_of(model, measured, seeds))
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
    if options.join:
        before = json.loads(options.out.read_text("utf-8")) if options.out.exists() else None
        write_results(options.out, joined(options.join, before))
    if options.out.exists():
        text = table(json.loads(options.out.read_text("utf-8")))
        print(text)
        if options.table:
            with replacing(options.table, overwrite=True) as temporary:
                temporary.write_text(text + "\n", "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
