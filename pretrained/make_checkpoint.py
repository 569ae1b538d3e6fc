"""Turns a finished run into a bundled checkpoint: weights for the package, and its folder of evidence here.

    se-keras train --model se_resnet20 --data cifar10.npz --recipe cifar --precision mixed_bfloat16 --out runs/se
    python pretrained/make_checkpoint.py runs/se se_resnet20.cifar10 --data cifar10.npz

Writes `se_keras/data/NAME.safetensors`, and into `pretrained/NAME/` the run's settings and log, its curves, the
confusion matrix, and `metrics.json`: accuracy on the test images in fp32 and, through LiteRT, in int8.
The last weights are taken, not those of the epoch that was best on the test images.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = pathlib.Path(__file__).parents[1]
CALIBRATION_IMAGES = 512


def main() -> None:
    import keras
    import numpy as np

    import se_keras
    from se_keras import export
    from se_keras.training.data import open_data
    from se_keras.training.evaluate import evaluate
    from se_keras.training.figures import draw_confusion, draw_curves
    from se_keras.training.state import read_position

    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("run", type=pathlib.Path)
    arguments.add_argument("name", help="model.tag")
    arguments.add_argument("--data", required=True)
    options = arguments.parse_args()
    identifier = options.name.partition(".")[0]
    facts = json.loads((options.run / "run.json").read_text("utf-8"))["facts"]
    trained = keras.models.load_model(options.run / "model.keras", compile=False)
    plain = not any(isinstance(layer, se_keras.SqueezeExcite) for layer in trained.layers)
    # Built anew, because the trained one may compute in half precision.
    model = se_keras.create_model(identifier, **({"se": None} if plain else {}))
    model.set_weights(trained.get_weights())

    data = open_data(options.data)
    fp32 = evaluate(model, data.validation)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "int8.tflite"
        calibration = np.stack([data.train[index] for index in range(CALIBRATION_IMAGES)])
        export.tflite(model, file, dtype="int8", representative_data=calibration)
        int8 = evaluate(file, data.validation)
        size = file.stat().st_size

    weights = ROOT / "se_keras/data" / f"{options.name}.safetensors"
    se_keras.save_safetensors(model, weights)
    target = ROOT / "pretrained" / options.name
    target.mkdir(exist_ok=True)
    for name in ("run.json", "log.csv"):
        shutil.copyfile(options.run / name, target / name)
    history = read_position(options.run / "state.safetensors").history
    title = f"{options.name}, seed {facts['seed']}, {len(history)} epochs of CIFAR-10"
    draw_curves({options.name: history}, target / "curves.png", title=title)
    draw_confusion(fp32, target / "confusion.png", title=f"{options.name}: {fp32.images:,} test images, fp32")
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    metrics = {
        "weights": {"file": os.fspath(weights.relative_to(ROOT)), "bytes": weights.stat().st_size, "sha256": sha256},
        "fp32": fp32.as_dict(),
        "int8": {**int8.as_dict(), "bytes": size, "calibration_images": CALIBRATION_IMAGES},
        "epochs": len(history),
        "best_epoch_accuracy": max(row["val_accuracy"] for row in history),
    }
    (target / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", "utf-8")
    print(
        f"{options.name}: fp32 {fp32.accuracy:.2%} (top-5 {fp32.top5:.2%}), int8 {int8.accuracy:.2%}, "
        f"{weights.stat().st_size / 1e6:.2f} MB, sha256 {sha256}"
    )


if __name__ == "__main__":
    main()
