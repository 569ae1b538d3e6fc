"""Extracts feature maps from every stage of a network, as a detector or a segmentation network does.

    python examples/feature_extraction.py

Then it uses the pooled features of an untrained network to find similar images: even random
convolutions respond to colors and edges. To use trained weights, pass a model file:

    python examples/feature_extraction.py --model model.keras
"""

import argparse

import keras
import numpy as np

import se_keras
from se_keras.training import load_sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a .keras file; default: SE-ResNet-18 with random weights")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    sample = load_sample()

    if options.model:
        model = keras.models.load_model(options.model)
    else:
        model = se_keras.SEResNet18(weights=None, input_shape=(64, 64, 3))
    images = se_keras.preprocess(sample.x_test[:200], model)

    maps = se_keras.feature_extractor(model).predict(images[:2], verbose=0)
    for name, values in maps.items():
        print(f"{name}: {values.shape[1]}x{values.shape[2]} positions, {values.shape[3]} channels")

    pooled = se_keras.feature_extractor(model, ["pooled"]).predict(images, verbose=0)["pooled"]
    pooled = (pooled - pooled.mean(0)) / (pooled.std(0) + 1e-6)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    similarity = pooled @ pooled.T
    np.fill_diagonal(similarity, -1)
    nearest = similarity.argmax(1)
    same = float((sample.y_test[nearest] == sample.y_test[:200]).mean())
    print(f"nearest neighbor has the same class for {same:.0%} of 200 images (chance: 10%)")


if __name__ == "__main__":
    main()
