"""The figures and numbers of docs/what-the-gates-do.md, from the bundled SE-ResNet-20 and CIFAR-10's test images.

python pretrained/study_gates.py cifar10.npz docs/gates
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PRUNING_IMAGES = 5000


def main() -> None:
    import math

    import numpy as np

    import se_keras
    from se_keras.analysis import collect_gates, plot_gates, plot_image, plot_pruning
    from se_keras.surgery import prune_gates, pruning_curve
    from se_keras.weights.bundled import CIFAR10_CLASSES

    with np.load(sys.argv[1]) as arrays:
        images, labels = arrays["x_test"], arrays["y_test"].ravel().astype(int)
    folder = pathlib.Path(sys.argv[2])
    model = se_keras.create_model("se_resnet20.cifar10")
    gates = collect_gates(
        model, images, labels, class_names=CIFAR10_CLASSES, data="CIFAR-10 test", batch_size=100, samples=1
    )
    plot_gates(gates, folder, overwrite=True)
    title = gates.class_names[int(gates.sample_labels[0])]
    plot_image(model, images[gates.sample_indices[0]], gates, folder / "image.png", title=title, overwrite=True)
    count = {"count_macs": lambda network: se_keras.model_info(network).total.macs, "batch_size": 100}
    some = (images[:PRUNING_IMAGES], (0.0, 0.02, 0.05, 0.1, 0.15, 0.2), labels[:PRUNING_IMAGES])
    curve = pruning_curve(model, *some, **count)
    plot_pruning([one.report for one in curve], folder / "pruning.png", data="CIFAR-10 test", overwrite=True)
    last = [block.name for block in gates.blocks if block.name.startswith("stage4")]
    _, report = prune_gates(model, some[0], math.inf, some[2], blocks=last, **count)
    numbers = {
        block.name: {
            "mean": round(float(block.total_mean.mean()), 4),
            "std": round(float(block.total_std.mean()), 4),
            "class_specificity": round(float(block.class_specificity), 4),
            "above 0.99": round(float(block.total_high_share.mean()), 4),
            "below 0.01": round(float(block.total_low_share.mean()), 4),
        }
        for block in gates.blocks
    }
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    print(json.dumps(numbers, indent=1))
    for one in curve:
        print(one.report)
    print("without the last stage's blocks:", report)


if __name__ == "__main__":
    main()
