"""Fine-tunes a network on a folder of photos, first with a frozen body, then the whole network.

    python examples/transfer_learning.py photos/            # photos/CLASS/*.jpg, 20% for validation
    python examples/transfer_learning.py photos/train --validation photos/val \
        --model se_resnet18 --size 128 --frozen-epochs 0 --epochs 20 --learning-rate 0.05

`--weights` takes a .keras file of the same network, trained by you, to start from. Without
arguments, the script creates both from the bundled images: it trains a small network on eight
classes, writes the images of the other two to folders, and adapts the network to them.
"""

import argparse
import pathlib
import tempfile

import keras
import numpy as np
from PIL import Image

import se_keras
from se_keras.training import load_sample


def classifier(body: keras.Model, classes: int, size: int) -> keras.Model:
    """Adds a new head to the body; batch normalization in the body keeps its statistics, frozen or not."""
    images = keras.Input((size, size, 3))
    x = body(images, training=False)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(images, keras.layers.Dense(classes, activation="softmax", dtype="float32")(x))


def fit(model: keras.Model, train, validation, *, epochs: int, learning_rate: float) -> float:
    """Trains with a cosine schedule; returns the accuracy on the validation photos, a fraction of 1."""
    if epochs:
        steps = epochs * len(train)
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate / 10, steps - steps // 10, warmup_target=learning_rate, warmup_steps=steps // 10
        )
        optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=1e-4)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
        model.fit(train, validation_data=validation, epochs=epochs, shuffle=False, verbose=2)
    else:
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.evaluate(validation, verbose=0)[1]


def photo_folders(options: argparse.Namespace):
    """Returns batches of (photos 0 to 255, labels) for training and validation, and the class names."""
    common = {"image_size": (options.size, options.size), "batch_size": options.batch_size, "seed": 0}
    common |= {"interpolation": "bilinear", "crop_to_aspect_ratio": True, "verbose": False}
    read = keras.utils.image_dataset_from_directory
    if options.validation:
        train, validation = read(options.photos, **common), read(options.validation, shuffle=False, **common)
    else:
        train, validation = read(options.photos, validation_split=0.2, subset="both", **common)
    names = train.class_names
    augment = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.RandomZoom((-0.3, 0.1))])
    train = train.cache().map(lambda x, y: (augment(x, training=True), y)).prefetch(2)
    return train, validation.cache().prefetch(2), names


def bundled_task(folder: pathlib.Path, options: argparse.Namespace) -> None:
    """Creates a trained body (eight classes) and a folder of photos (the other two) from the bundled images."""
    sample = load_sample()
    old = sample.y_train < 8
    model = se_keras.SEResNet20(classes=8)
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    model.fit(sample.x_train[old], sample.y_train[old], batch_size=50, epochs=3, verbose=2)
    model.save(folder / "body.keras")
    for index in np.flatnonzero(~old):
        photo = folder / "photos" / sample.class_names[sample.y_train[index]] / f"{index}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.x_train[index]).save(photo)
    options.photos, options.weights = folder / "photos", folder / "body.keras"
    options.model, options.size, options.batch_size = "se_resnet20", 32, 20


def adapt(options: argparse.Namespace) -> None:
    train, validation, names = photo_folders(options)
    body = se_keras.create_model(
        options.model, include_top=False, pooling="avg", input_shape=(options.size, options.size, 3)
    )
    if options.weights:
        trained = keras.models.load_model(options.weights)
        for layer in body.layers:
            layer.set_weights(trained.get_layer(layer.name).get_weights())
    model = classifier(body, len(names), options.size)

    if options.frozen_epochs:
        body.trainable = False
        frozen = fit(model, train, validation, epochs=options.frozen_epochs, learning_rate=options.learning_rate)
        print(f"body frozen: validation accuracy {frozen:.1%}")
        body.trainable = True
        options.learning_rate /= 10  # the pretrained weights should move little
    else:  # from scratch: batch normalization must learn its statistics
        model = keras.Sequential([body, *model.layers[2:]])
    accuracy = fit(model, train, validation, epochs=options.epochs, learning_rate=options.learning_rate)
    print(f"whole network: validation accuracy {accuracy:.1%} on {', '.join(names)}")
    if options.output:
        model.save(options.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=pathlib.Path)
    parser.add_argument("--validation", type=pathlib.Path, help="default: a fifth of the photos")
    parser.add_argument("--model", default="se_resnet18")
    parser.add_argument("--weights", type=pathlib.Path, help="a .keras file of the same network")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--frozen-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--output", type=pathlib.Path, help="where to save the result (.keras)")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        if options.photos is None:
            bundled_task(pathlib.Path(folder), options)
        adapt(options)


if __name__ == "__main__":
    main()
