"""Analyzes the gates of a network: statistics, figures, and the effect of pruning its SE blocks.

    python examples/gates.py --model model.keras --data photos.npz --out figures

`photos.npz` has `images` in the scale of the model's input, and `labels`. Without arguments, it trains
SE-ResNet-20 on the bundled images for one epoch and analyzes the bundled test images: the steps are
the same, but the gates have learned little. Figures need `pip install 'se_keras[plots]'`.
"""

import argparse
import pathlib
import tempfile

import keras
import numpy as np

import se_keras
from se_keras.analysis import Gates, collect_gates, plot_gates, plot_image, plot_pruning
from se_keras.surgery import pruning_curve
from se_keras.training import load_sample


def train_small_model() -> keras.Model:
    sample = load_sample()
    model = se_keras.SEResNet20()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(sample.x_train, sample.y_train, batch_size=50, epochs=1, verbose=2)
    return model


def look(model: keras.Model, images: np.ndarray, gates: Gates, labels: np.ndarray, folder: pathlib.Path) -> None:
    for block in gates.blocks:
        print(
            f"{block.name}: {block.class_specificity:.0%} of the variance is between classes, "
            f"{block.total_high_share.mean():.1%} of the gates are above 0.99"
        )
    files = plot_gates(gates, folder, overwrite=True)
    name = gates.class_names[int(gates.sample_labels[0])]
    files += plot_image(model, images[gates.sample_indices[0]], gates, folder / "image.png", title=name, overwrite=True)

    reports = pruning_curve(
        model,
        images,
        bounds=(0.0, 0.02, 1.0),
        labels=labels,
        count_macs=lambda m: se_keras.model_info(m).total.macs,
    )
    files += plot_pruning(reports, folder / "pruning.png", title=gates.title, overwrite=True)
    print(reports[-1])
    print("wrote", ", ".join(sorted(path.name for path in files)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a .keras file; default: train a small network")
    parser.add_argument("--data", help="an .npz file with `images` and `labels`; default: the bundled test images")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the figures; default: a temporary folder")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)

    model = keras.models.load_model(options.model) if options.model else train_small_model()
    if options.data:
        arrays = np.load(options.data)
        images, labels, names, title = arrays["images"], arrays["labels"], None, pathlib.Path(options.data).stem
    else:
        sample = load_sample()
        images, labels, names, title = sample.x_test, sample.y_test, sample.class_names, "CIFAR-10 sample"
    gates = collect_gates(model, images, labels=labels, class_names=names, title=title, samples=1)
    with tempfile.TemporaryDirectory() as folder:
        look(model, images, gates, labels, options.out or pathlib.Path(folder))


if __name__ == "__main__":
    main()
