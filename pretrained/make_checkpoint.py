"""Converts a finished run to a bundled checkpoint: weights for the package, and a folder of evidence here.

    se-keras train --model se_resnet20 --data cifar10.npz --recipe cifar --precision mixed_bfloat16 --out runs/se
    python pretrained/make_checkpoint.py runs/se se_resnet20.cifar10 --data cifar10.npz

Writes `se_keras/data/NAME.safetensors`, and in `pretrained/NAME/` the run's settings and log, its curves, the
confusion matrix, and `metrics.json`: accuracy on the test images in fp32 and, with LiteRT, in int8.
It uses the last weights, not those of the epoch that was best on the test images.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CARD = """# {name}

{title} for small images, {excitation}trained on CIFAR-10 (Krizhevsky, 2009): {train:,} images of
32x32 pixels in ten classes.

| | |
| --- | --- |
| Accuracy, official {images:,} test images | {fp32:.2%} in fp32; {int8:.2%} in int8 ({calibration} to calibrate) |
| Weights | after the last of {epochs} epochs, seed {seed}; {parameters:,} trainable parameters, {megabytes:.2f} MB |
| Recipe | `{recipe}` (`se-keras train --recipes`), batches of {batch_size}, {precision} |
| Made by | `{command}` |
| To measure again | `se-keras evaluate {name} --data cifar10` |
| License | Apache-2.0, like the code; CIFAR-10 itself states no license |

The checkpoint is meant for trying the package offline, for tests of exports, and as a start for transfer learning on
other small images. It is a single seed and does not show how much runs vary. It knows ten classes of small, centered
objects and returns one of them for any image. Its biases are unknown. The training images of CIFAR-10 were collected
from the web without the consent of the people shown.

![Accuracy and loss per epoch](curves.png)

![Confusion matrix](confusion.png)
"""
ROOT = pathlib.Path(__file__).parents[1]
CALIBRATION_IMAGES = 512
CARD_ARGUMENTS = ("model", "reduction", "data", "recipe", "epochs", "seed", "precision")


def main() -> None:
    import keras
    import numpy as np

    import se_keras
    from se_keras import export
    from se_keras.training.evaluate import evaluate
    from se_keras.training.figures import draw_confusion, draw_curves
    from se_keras.training.sources import open_data
    from se_keras.training.state import read_progress
    from se_keras.weights.bundled import CIFAR10_CLASSES

    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("run", type=pathlib.Path)
    arguments.add_argument("name", help="model.tag")
    arguments.add_argument("--data", required=True)
    options = arguments.parse_args()
    identifier = options.name.partition(".")[0]
    begun = json.loads((options.run / "run.json").read_text("utf-8"))
    facts = begun["facts"]
    # The path of the images is irrelevant; the fingerprint identifies them.
    facts["data"]["name"] = facts["arguments"]["data"] = "cifar10"
    facts["data"]["classes"] = list(CIFAR10_CLASSES)  # an .npz file may only number them
    trained = keras.models.load_model(options.run / "model.keras", compile=False)
    reduction = next((layer.reduction for layer in trained.layers if isinstance(layer, se_keras.SqueezeExcite)), None)
    se = None if reduction is None else se_keras.SEConfig(reduction=reduction)
    # Built again, because the trained model may compute in half precision.
    model = se_keras.create_model(identifier, se=se)
    model.set_weights(trained.get_weights())

    data = open_data(options.data)
    names = {"class_names": tuple(facts["data"]["classes"])}
    fp32 = dataclasses.replace(evaluate(model, data.validation), **names)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "int8.tflite"
        calibration = np.stack([data.train[index] for index in range(CALIBRATION_IMAGES)])
        export.tflite(model, file, dtype="int8", data=calibration)
        int8 = dataclasses.replace(evaluate(file, data.validation), **names)
        size = file.stat().st_size

    weights = ROOT / "se_keras/data" / f"{options.name}.safetensors"
    se_keras.save_safetensors(model, weights, overwrite=True)
    target = ROOT / "pretrained" / options.name
    target.mkdir(exist_ok=True)
    shutil.copyfile(options.run / "log.csv", target / "log.csv")
    (target / "run.json").write_text(json.dumps(begun, indent=2) + "\n", "utf-8")
    history = read_progress(options.run / "state.safetensors").history
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
    recipe = facts["recipe"]
    arguments = facts["arguments"]
    flags = [f"--{name.replace('_', '-')} {arguments[name]}" for name in CARD_ARGUMENTS if arguments[name] is not None]
    excitation = "without SE, " if reduction is None else f"SE of reduction {reduction}, "
    card = CARD.format(
        name=options.name,
        title="SE-ResNet-20" if identifier == "se_resnet20" else identifier,
        excitation=excitation,
        train=facts["data"]["train"],
        images=fp32.images,
        fp32=fp32.accuracy,
        int8=int8.accuracy,
        calibration=CALIBRATION_IMAGES,
        epochs=len(history),
        seed=facts["seed"],
        parameters=sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        megabytes=weights.stat().st_size / 1e6,
        recipe=recipe["name"],
        batch_size=recipe["batch_size"],
        precision=arguments["precision"],
        command=" ".join(["se-keras train", *flags, *(["--plain"] if arguments["plain"] else []), "--out RUN"]),
    )
    (target / "README.md").write_text(card, "utf-8")
    cost = se_keras.model_info(model).total
    how = (
        f"Trained here with the recipe `{recipe['name']}`: {len(history)} epochs, seed {facts['seed']}, final weights."
    )
    figures = f"{100 * fp32.accuracy:.2f}, {100 * fp32.top5:.2f}, {cost.trainable:_}, {cost.macs:_}"
    print(f"int8 {int8.accuracy:.2%}, {weights.stat().st_size / 1e6:.2f} MB. The row of se_keras/weights/bundled.py:")
    print(f'    ("{identifier}", "{options.name.partition(".")[2]}", {reduction},')
    print(f'     "{sha256}",\n     {figures},\n     "{how}"),')


if __name__ == "__main__":
    main()
