"""Trains KerasHub's RetinaNet with an SE-ResNet backbone to find shapes, and draws the boxes that it finds.

    python examples/detection.py --out detection.png

Images of circles, squares, and triangles on a noisy background, and their boxes, are drawn by the script. The backbone
is the SE-ResNet-20 for CIFAR-10 that comes with the package; a larger one downloads its weights:

    python examples/detection.py --model se_resnet50 --weights imagenet --size 128

To detect your own objects, pass your images and boxes to `detector.fit` in the same form.
"""

import argparse
import pathlib

import keras
import keras_hub
import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from se_keras import hub

matplotlib.use("Agg")
CLASSES = ("circle", "square", "triangle")
COLORS = ("tab:red", "tab:blue", "tab:green")
EPOCHS = 4
MOST = 3  # shapes per image


def corners(shape: str, box: tuple[float, ...]) -> list[tuple[float, float]]:
    """Returns the corners of a square or triangle in a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    if shape == "square":
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    return [((left + right) / 2, top), (right, bottom), (left, bottom)]


def draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws an image; returns it with boxes (left, top, right, bottom) in pixels and labels, both padded with -1."""
    noise = rng.normal(rng.uniform(60, 190), 25, (size, size, 3))
    picture = Image.fromarray(noise.clip(0, 255).astype("uint8"))
    pen = ImageDraw.Draw(picture)
    boxes, labels = np.full((MOST, 4), -1.0, "float32"), np.full(MOST, -1, "int32")
    for index in range(rng.integers(1, MOST + 1)):
        side, label = rng.uniform(size / 4, size / 2), int(rng.integers(len(CLASSES)))
        left, top = rng.uniform(0, size - side, 2)
        box = (left, top, left + side, top + side)
        overlaps = (np.minimum(box[2:], boxes[:index, 2:]) - np.maximum(box[:2], boxes[:index, :2])).min(1) > 0
        if overlaps.any():
            break
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        if CLASSES[label] == "circle":
            pen.ellipse(box, fill=color)
        else:
            pen.polygon(corners(CLASSES[label], box), fill=color)
        boxes[index], labels[index] = box, label
    return np.asarray(picture, "float32"), boxes, labels


def dataset(count: int, size: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns images (count, size, size, 3), and their boxes and labels as KerasHub expects them."""
    rng = np.random.default_rng(seed)
    images, boxes, labels = zip(*(draw(rng, size) for _ in range(count)), strict=True)
    return np.stack(images), {"boxes": np.stack(boxes), "labels": np.stack(labels)}


def build(options: argparse.Namespace) -> keras.Model:
    """Builds a RetinaNet with three levels, whose anchors are 4 to 6 times as large as their strides."""
    shape = (options.size, options.size, 3)
    encoder = hub.backbone(options.model, weights=options.weights, image_shape=shape)
    for layer in encoder.layers:  # statistics of few images would disturb those of the trained weights
        layer.trainable = options.weights is None or not isinstance(layer, keras.layers.BatchNormalization)
    first = 3 if "P5" in encoder.pyramid_outputs else 2  # a network for CIFAR ends with P2
    backbone = keras_hub.models.RetinaNetBackbone(
        image_encoder=encoder,
        min_level=first,
        max_level=first + 2,
        use_p5=False,
        image_shape=shape,
    )
    detector = keras_hub.models.RetinaNetObjectDetector(
        backbone, num_classes=len(CLASSES), bounding_box_format="xyxy", pre_logits_num_conv_layers=1
    )
    detector.prediction_decoder = keras_hub.layers.NonMaxSuppression(
        "xyxy", from_logits=True, iou_threshold=0.1, confidence_threshold=0.35, max_detections=MOST
    )
    return detector


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of a box with others, from 0 to 1."""
    sides = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(0)
    areas = [(part[:, 2:] - part[:, :2]).prod(1) for part in (box[None], boxes)]
    return sides.prod(1) / (areas[0] + areas[1] - sides.prod(1))


def found(truth: dict[str, np.ndarray], predictions: dict[str, np.ndarray]) -> float:
    """Returns the fraction of shapes that a box of their class covers with an overlap above 0.5."""
    hits = []
    for index, labels in enumerate(truth["labels"]):
        for box, label in zip(truth["boxes"][index], labels, strict=True):
            same = predictions["boxes"][index][predictions["labels"][index] == label]
            if label >= 0:
                hits.append(len(same) > 0 and overlap(box, same).max() > 0.5)
    return float(np.mean(hits))


def plot(images: np.ndarray, predictions: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Draws the detections, with their class and confidence."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(12, 6.4), layout="constrained")
    for index, axis in enumerate(axes.flat):
        axis.imshow(images[index].astype("uint8"))
        axis.axis("off")
        parts = (predictions[name][index] for name in ("boxes", "labels", "confidence"))
        for (left, top, right, bottom), label, confidence in zip(*parts, strict=True):
            if label >= 0:
                color = COLORS[int(label)]
                axis.add_patch(plt.Rectangle((left, top), right - left, bottom - top, fill=False, ec=color, lw=2))
                axis.text(
                    max(left, 0),
                    max(top, 0),
                    f"{CLASSES[int(label)]} {confidence:.0%}",
                    color="white",
                    backgroundcolor=color,
                    clip_on=True,
                    va="top",
                )
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="se_resnet20")
    parser.add_argument("--weights", default="cifar10", help="weights of the backbone")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    parser.add_argument("--steps", type=int, default=320, help="training steps of 8 images each")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("detection.png"))
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    images, truth = dataset(8 * options.steps // EPOCHS, options.size, seed=1)
    detector = build(options)
    warm_up = options.steps // 8
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, options.steps - warm_up, warmup_target=1e-3, warmup_steps=warm_up
    )
    detector.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=10.0),
        box_loss=keras.losses.Huber(reduction="sum"),
        classification_loss=keras.losses.BinaryFocalCrossentropy(from_logits=True, reduction="sum"),
        jit_compile=False,
    )
    detector.fit(images, truth, batch_size=8, epochs=EPOCHS, shuffle=False, verbose=2)
    test, truth = dataset(64, options.size, seed=2)
    predictions = detector.predict(test, verbose=0)
    print(f"found {found(truth, predictions):.0%} of the shapes in 64 other images")
    plot(test, predictions, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
