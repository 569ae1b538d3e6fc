"""Trains KerasHub's DeepLabV3+ with an SE-ResNet backbone to segment shapes, and draws the masks.

    python examples/segmentation.py --out segmentation.png

Images of circles and squares on a noisy background, and the class of every pixel, are drawn by the script. The
backbone is the SE-ResNet-20 for CIFAR-10 that comes with the package; a larger one downloads its weights:

    python examples/segmentation.py --model se_resnet50 --weights imagenet --size 128

With `--tflite shapes.tflite`, it also exports the trained network for phones, and compares the file with it.
"""

import argparse
import pathlib

import keras
import keras_hub
import matplotlib
import numpy as np
from PIL import Image, ImageDraw

import se_keras
from se_keras import hub

matplotlib.use("Agg")
CLASSES = ("background", "circle", "square")
EPOCHS = 4


def draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws up to three shapes; returns the image (size, size, 3), 0 to 255, and the class of each pixel."""
    noise = rng.normal(rng.uniform(60, 190), 25, (size, size, 3))
    picture = Image.fromarray(noise.clip(0, 255).astype("uint8"))
    mask = Image.new("L", (size, size))
    for _ in range(rng.integers(1, 4)):
        side, label = rng.uniform(size / 5, size / 2), int(rng.integers(1, len(CLASSES)))
        left, top = rng.uniform(0, size - side, 2)
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        for image, fill in ((picture, color), (mask, label)):
            pen = ImageDraw.Draw(image)
            (pen.ellipse if CLASSES[label] == "circle" else pen.rectangle)((left, top, left + side, top + side), fill)
    return np.asarray(picture, "float32"), np.asarray(mask)


def dataset(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (count, size, size, 3) and masks (count, size, size)."""
    rng = np.random.default_rng(seed)
    images, masks = zip(*(draw(rng, size) for _ in range(count)), strict=True)
    return np.stack(images), np.stack(masks)


def build(options: argparse.Namespace) -> keras.Model:
    """Builds a DeepLabV3+ that reads the first and the last stage of the backbone."""
    shape = (options.size, options.size, 3)
    encoder = hub.backbone(options.model, weights=options.weights, image_shape=shape)
    for layer in encoder.layers:  # statistics of few images would disturb those of the trained weights
        layer.trainable = options.weights is None or not isinstance(layer, keras.layers.BatchNormalization)
    first, *_, last = encoder.pyramid_outputs  # "P2" and "P5"; "P0" and "P2" of a network for CIFAR
    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=encoder,
        spatial_pyramid_pooling_key=last,
        low_level_feature_key=first,
        upsampling_size=2 ** (int(last[1]) - int(first[1])),
        dilation_rates=[1, 2, 3],
        image_shape=shape,
    )
    return keras_hub.models.DeepLabV3ImageSegmenter(backbone, num_classes=len(CLASSES), activation="softmax")


def overlap(masks: np.ndarray, predicted: np.ndarray) -> float:
    """Returns the mean over the classes of intersection over union, from 0 to 1."""
    parts = [(masks == label, predicted == label) for label in range(len(CLASSES))]
    return float(np.mean([(one & other).sum() / (one | other).sum() for one, other in parts]))


def plot(images: np.ndarray, masks: np.ndarray, path: pathlib.Path) -> None:
    """Draws each image above its predicted mask."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 6, figsize=(12, 4.2), layout="constrained")
    for column, (image, mask) in enumerate(zip(images[:6], masks[:6], strict=True)):
        axes[0, column].imshow(image.astype("uint8"))
        drawn = axes[1, column].imshow(mask, vmin=0, vmax=len(CLASSES) - 1, cmap=plt.get_cmap("viridis", len(CLASSES)))
    for axis in axes.flat:
        axis.axis("off")
    ticks = figure.colorbar(drawn, ax=axes, ticks=[1 / 3, 1, 5 / 3], shrink=0.5)
    ticks.ax.set_yticklabels(CLASSES)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="se_resnet20")
    parser.add_argument("--weights", default="cifar10", help="weights of the backbone")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    parser.add_argument("--steps", type=int, default=100, help="training steps of 8 images each")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("segmentation.png"))
    parser.add_argument("--tflite", type=pathlib.Path, help="also export the network to this file")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    images, masks = dataset(8 * options.steps // EPOCHS, options.size, seed=1)
    segmenter = build(options)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, options.steps)
    segmenter.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=[], jit_compile=False)
    segmenter.fit(images, masks, batch_size=8, epochs=EPOCHS, shuffle=False, verbose=2)
    test, masks = dataset(64, options.size, seed=2)
    predicted = segmenter.predict(test, verbose=0).argmax(-1)
    print(f"mean intersection over union {overlap(masks, predicted):.0%} on 64 other images")
    plot(test, predicted, options.out)
    print(f"wrote {options.out}")
    if options.tflite:
        se_keras.export.tflite(segmenter, options.tflite, overwrite=True)
        report = se_keras.export.verify(options.tflite, segmenter, data=test)
        print(f"wrote {options.tflite}: {'passed' if report.passed else 'FAILED'}")


if __name__ == "__main__":
    main()
