"""What SE does for a trained network that it is inserted into: fine-tuning with and without, same budget and seeds.

    python pretrained/study_insertion.py --data cifar10.npz --seeds 0 1 2 --out pretrained/study-insertion.json

The network is the bundled ResNet-20 without SE. Resumes with the seeds that are missing in the file.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    import keras

    import se_keras
    from se_keras.files import replacing
    from se_keras.training.data import open_data
    from se_keras.training.evaluate import evaluate
    from se_keras.training.loop import train
    from se_keras.training.recipes import Phase, Recipe, get_recipe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    data = open_data(options.data)
    cifar = get_recipe("cifar")
    recipe = Recipe(
        name="short",
        phases=(Phase(epochs=options.epochs, learning_rate=0.02),),
        batch_size=cifar.batch_size,
        weight_decay=cifar.weight_decay,
        decays_norms_and_biases=False,
        transforms=cifar.transforms,
        source="the recipe `cifar` at a tenth of its rate",
    )
    found = (
        json.loads(options.out.read_text("utf-8")) if options.out.exists() else {"epochs": options.epochs, "runs": {}}
    )
    networks = {
        "without SE": lambda: se_keras.create_model("se_resnet20.cifar10_plain"),
        "with SE inserted": lambda: se_keras.insert_squeeze_excite(se_keras.create_model("se_resnet20.cifar10_plain")),
    }
    for name, build in networks.items():
        if name not in found:
            found[name] = {"before": evaluate(build(), data.validation).accuracy}
        for seed in options.seeds:
            key = f"{name}, seed {seed}"
            if key in found["runs"]:
                continue
            keras.utils.set_random_seed(seed)
            with tempfile.TemporaryDirectory() as folder:
                result = train(build(), data, recipe, pathlib.Path(folder) / "run", seed=seed)
            found["runs"][key] = result.history[-1]["val_accuracy"]
            values = [found["runs"][f"{name}, seed {s}"] for s in options.seeds if f"{name}, seed {s}" in found["runs"]]
            found[name]["after"] = {
                "mean": statistics.mean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
            }
            with replacing(options.out, overwrite=True) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(f"{key}: {found[name]['before']:.2%} before, {found['runs'][key]:.2%} after", flush=True)


if __name__ == "__main__":
    main()
