"""Classifies photos with a saved model.

    python examples/predict.py --model model.keras --class-names labels.txt photo.jpg another.png

Without arguments, it first trains a small network on the bundled images for one epoch, saves it,
reloads it, and classifies four test images: the steps are the same, but the predictions are poor.
"""

import argparse
import pathlib
import tempfile

import keras
from PIL import Image

import se_keras
from se_keras.class_names_file import read_class_names
from se_keras.training import load_sample


def train_small_model(folder: pathlib.Path) -> tuple[pathlib.Path, list[str], list[pathlib.Path]]:
    """Trains SE-ResNet-20 for one epoch; returns its file, the class names, and some test photos."""
    sample = load_sample()
    model = se_keras.SEResNet20()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(sample.x_train, sample.y_train, batch_size=50, epochs=1, verbose=2)
    model.save(folder / "model.keras")
    photos = []
    for index in range(0, 500, 125):
        photos.append(folder / f"{sample.class_names[sample.y_test[index]]}_{index}.png")
        Image.fromarray(sample.x_test[index]).save(photos[-1])
    return folder / "model.keras", list(sample.class_names), photos


def predict(model_file: pathlib.Path, class_names: list[str] | None, photos: list[pathlib.Path]) -> None:
    model = keras.models.load_model(model_file)  # `import se_keras` registers the layers
    images = se_keras.preprocess(photos, model)  # decodes, resizes, and crops for the model
    rows = se_keras.decode_predictions(model.predict(images, verbose=0), top=3, class_names=class_names)
    for photo, row in zip(photos, rows, strict=True):
        print(photo.name.ljust(24), ", ".join(f"{name} {probability:.1%}" for _, name, probability in row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--class-names", type=pathlib.Path, help="one class name per line; default: ImageNet's")
    options = parser.parse_args()
    if options.model:
        predict(options.model, read_class_names(options.class_names) if options.class_names else None, options.photos)
        return
    with tempfile.TemporaryDirectory() as folder:
        predict(*train_small_model(pathlib.Path(folder)))


if __name__ == "__main__":
    main()
