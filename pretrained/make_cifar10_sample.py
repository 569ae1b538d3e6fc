"""Extracts the sample bundled with the package from the full CIFAR-10.

    python pretrained/make_cifar10_sample.py cifar10.npz

`cifar10.npz` holds x_train, y_train, x_test, and y_test as `keras.datasets.cifar10.load_data`
returns them. The sample has the first 100 training and the first 50 test images of each class.
"""

import pathlib
import sys

import numpy as np

TARGET = pathlib.Path(__file__).parents[1] / "se_keras/data/cifar10_sample.npz"
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SOURCE = (
    "CIFAR-10, Alex Krizhevsky, 'Learning Multiple Layers of Features from Tiny Images', 2009: "
    "the first 100 training and the first 50 test images of each class, pixels unchanged"
)


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the first `count` images of each class, in the order of the dataset."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(len(NAMES))]))


def main() -> None:
    full = np.load(sys.argv[1])
    train = first_of_each_class(full["y_train"].ravel(), 100)
    test = first_of_each_class(full["y_test"].ravel(), 50)
    np.savez_compressed(
        TARGET,
        x_train=full["x_train"][train],
        y_train=full["y_train"].ravel()[train].astype("uint8"),
        x_test=full["x_test"][test],
        y_test=full["y_test"].ravel()[test].astype("uint8"),
        class_names=np.array(NAMES),
        source=np.array(SOURCE),
    )
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
