"""Studies the effect of SE inserted into a trained network: fine-tuning with and without it, everything else equal.

    python pretrained/study_insertion.py --data cifar10.npz --seeds 0 1 2 --out insertion
    python pretrained/study_insertion.py --out insertion --table insertion.md              # only the table

The network is the bundled ResNet-20 without SE. Each arm starts from its weights, with the same number of epochs and
the recipe `cifar` at a tenth of its learning rate. For each seed, the order of the images and the augmentation are the
same, so the arms are compared seed by seed. All weights, including those of the new blocks, have the same learning
rate. Accuracy is measured on all validation images with the weights after the last epoch: it selects none.

SE is inserted with reduction 4: the default, 16, leaves two units where there are 16 channels. `--arms` adds others.

The folder gets a file for each start and each run, with recipe, versions, and seconds, and a folder for each run in
progress; the same command resumes where it was stopped. Processes with different seeds may share one folder, each on
its own core: `taskset -c 0 python ... --seeds 0 --threads 1`. `table.md` is made from all finished runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BASE = "se_resnet20.cifar10_plain"
RATE = 0.02
PLAIN = "plain"
REDUCTIONS: dict[str, int | None] = {PLAIN: None, "se_r4": 4, "se_r8": 8, "se_r16": 16}
TITLES = {
    PLAIN: "without SE",
    **{arm: f"SE inserted, reduction {reduction}" for arm, reduction in REDUCTIONS.items() if reduction},
}


def main() -> None:
    options = arguments()
    if options.data:
        study(options)
    text = table(options.out)
    print(text)
    write(options.out / "table.md", text)
    if options.table:
        write(options.table, text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="as in `se-keras train`; without it, only the table is made")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=REDUCTIONS, default=[PLAIN, "se_r4"], metavar="ARM")
    parser.add_argument("--threads", type=int, default=2, help="threads that read and augment")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder")
    parser.add_argument("--table", type=pathlib.Path, help="another Markdown file for the table")
    return parser.parse_args()


def study(options: argparse.Namespace) -> None:
    """Measures the starts, and makes the runs that are missing in the folder."""
    from se_keras.training.sources import open_data

    data, recipe = open_data(options.data), recipe_for(options.epochs)
    for arm in options.arms:  # all starts first: they are quick and show whether insertion changed an answer
        file = options.out / f"start.{arm}.json"
        if not known(file, facts_of(arm, data, recipe)):
            write_json(file, start(arm, data, recipe))
            print(f"{TITLES[arm]}: {json.loads(file.read_text('utf-8'))['accuracy']:.2%} before training", flush=True)
    for seed in options.seeds:  # pairs of equal seeds first, so that a partial study is already a comparison
        for arm in options.arms:
            file = options.out / f"run.{arm}.seed{seed}.json"
            if not known(file, facts_of(arm, data, recipe)):
                write_json(file, run(arm, data, recipe, seed, options))
                print(f"{TITLES[arm]}, seed {seed}: {json.loads(file.read_text('utf-8'))['accuracy']:.2%}", flush=True)


def recipe_for(epochs: int) -> Any:
    from se_keras.training.recipes import Phase, get_recipe

    return dataclasses.replace(
        get_recipe("cifar"),
        name="cifar, briefly",
        phases=(Phase(epochs=epochs, learning_rate=RATE),),
        source=f"the recipe `cifar` at a peak rate of {RATE}, a tenth of its own, without warm-up",
        evidence="",
    )


def network(arm: str) -> Any:
    """Returns the trained network, with SE inserted unless the arm is the plain one."""
    import se_keras

    base = se_keras.create_model(BASE)
    reduction = REDUCTIONS[arm]
    if reduction is None:
        return base
    return se_keras.insert_squeeze_excite(base, se=se_keras.SEConfig(reduction=reduction, gate_init="identity"))


def start(arm: str, data: Any, recipe: Any) -> dict[str, Any]:
    """Measures a network before training: its size, its accuracy, and the difference of its answers from the base's."""
    import keras
    import numpy as np

    import se_keras
    from se_keras.preprocessing import preprocessing_of
    from se_keras.training.batches import fitted
    from se_keras.training.evaluate import evaluate
    from se_keras.training.run_folder import versions

    keras.utils.set_random_seed(0)
    model, base = network(arm), network(PLAIN)
    chosen = np.linspace(0, len(data.validation) - 1, min(len(data.validation), 500)).round().astype(int)
    images = np.stack([fitted(data.validation[int(index)], preprocessing_of(base)) for index in chosen])
    answers = [one.predict(images, batch_size=100, verbose=0) for one in (model, base)]
    widths = [layer.reduce_kernel.shape[1] for layer in model.layers if isinstance(layer, se_keras.SqueezeExcite)]
    return {
        "facts": facts_of(arm, data, recipe),
        "accuracy": evaluate(model, data.validation).accuracy,
        "greatest_difference_from_base": float(np.abs(answers[0] - answers[1]).max()),
        "parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        "units_of_blocks": widths,
        "versions": versions(),
    }


def run(arm: str, data: Any, recipe: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trains one network with one seed, or resumes its run."""
    import keras

    from se_keras.training.loop import train
    from se_keras.training.run_folder import RUN_FILE

    folder = options.out / "under-way" / f"{arm}.seed{seed}"
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    result = train(
        network(arm),
        data,
        recipe,
        folder,
        seed=seed,
        resume=(folder / RUN_FILE).exists(),
        save_every=300.0,
        threads=options.threads,
        notes={"arm": arm},
    )
    last = result.history[-1]
    begun = json.loads((folder / RUN_FILE).read_text("utf-8"))
    shutil.rmtree(folder)
    return {
        "facts": facts_of(arm, data, recipe),
        "seed": seed,
        "accuracy": last["val_accuracy"],
        "loss": last["val_loss"],
        "history": list(result.history),
        "seconds": round(sum(row["seconds"] for row in result.history), 1),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "run": begun,
    }


def facts_of(arm: str, data: Any, recipe: Any) -> dict[str, Any]:
    """Returns the facts that results in one table must share; the run's own record has the rest."""
    return {
        "base": BASE,
        "base_fingerprint": fingerprint(),
        "arm": arm,
        "reduction": REDUCTIONS[arm],
        "data": data.name,
        "fingerprint": [data.train.fingerprint, data.validation.fingerprint],
        "images": [len(data.train), len(data.validation)],
        "epochs": recipe.epochs,
        "learning_rate": recipe.phases[0].learning_rate,
        "schedule": recipe.phases[0].schedule,
        "batch_size": recipe.batch_size,
        "weight_decay": recipe.weight_decay,
        "transforms": [repr(transform) for transform in recipe.transforms],
    }


def fingerprint() -> str:
    """Returns a fingerprint of the bundled weights, to identify those of a result."""
    from se_keras.weights.published import RECORDS

    return RECORDS[BASE].sources[0].sha256[:16]


def known(file: pathlib.Path, facts: dict[str, Any]) -> bool:
    """Returns whether a file has the requested result; exits if it has the results of another study."""
    if not file.exists():
        return False
    then, now = json.loads(file.read_text("utf-8"))["facts"], json.loads(json.dumps(facts))
    differences = [f"{key} was {then.get(key)!r}, is {now[key]!r}" for key in now if then.get(key) != now[key]]
    if differences:
        raise SystemExit(f"{file} belongs to another study ({'; '.join(differences)}). Pass another --out.")
    return True


def table(folder: pathlib.Path) -> str:
    """Returns a Markdown table with one row per arm: mean and deviation over seeds; differences pair equal seeds."""
    starts = {arm: read(folder / f"start.{arm}.json") for arm in REDUCTIONS if (folder / f"start.{arm}.json").exists()}
    runs = {arm: [read(file) for file in sorted(folder.glob(f"run.{arm}.seed*.json"))] for arm in starts}
    if not starts:
        raise SystemExit(f"there are no results in {folder}; start with --data")
    everything = [*starts.values(), *(row for rows in runs.values() for row in rows)]
    studies = {json.dumps({**one["facts"], "arm": None, "reduction": None}) for one in everything}
    if len(studies) > 1:
        raise SystemExit(f"{folder} holds results of {len(studies)} studies; give each its own folder")
    facts = everything[0]["facts"]
    plain = {row["seed"]: row["accuracy"] for row in runs.get(PLAIN, [])}
    lines = [
        f"`{facts['base']}` and the same network with SE, fine-tuned for {facts['epochs']} epochs at a peak rate of "
        f"{facts['learning_rate']:g} on {facts['images'][0]:,} images; accuracy on {facts['images'][1]:,} others.",
        "",
        "| Network | Parameters | Units of a block | Before training, % | Largest change of a probability | Seeds "
        "| After, % | Over the plain one, points |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for arm, begin in starts.items():
        rows = runs[arm]
        widths = sorted(set(begin["units_of_blocks"]))
        paired = [100 * (row["accuracy"] - plain[row["seed"]]) for row in rows if row["seed"] in plain]
        lines.append(
            f"| {TITLES[arm]} | {begin['parameters']:,} | {', '.join(map(str, widths))} "
            f"| {100 * begin['accuracy']:.2f} | {begin['greatest_difference_from_base']:.0e} | {len(rows)} "
            f"| {mean_and_deviation([100 * row['accuracy'] for row in rows])} "
            f"| {mean_and_deviation(paired, sign='+') if arm != PLAIN else ''} |"
        )
    return "\n".join(lines) + "\n"


def mean_and_deviation(values: list[float], *, sign: str = "") -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):{sign}.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def read(file: pathlib.Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8"))


def write_json(file: pathlib.Path, content: dict[str, Any]) -> None:
    write(file, json.dumps(content, indent=1) + "\n")


def write(path: pathlib.Path, text: str) -> None:
    from se_keras.files import replacing

    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
