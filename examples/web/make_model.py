"""Exports a saved model for the web page: model.tflite, and model.json beside it.

    python examples/web/make_model.py --model model.keras --labels labels.txt

Without arguments it takes the network that `make demo` has trained.
"""

from __future__ import annotations

import argparse
import pathlib

import keras

import se_keras
from se_keras import export
from se_keras.preprocessing import imagenet_labels

PUBLIC = pathlib.Path(__file__).parent / "public"
DEMO = pathlib.Path("demo_output")


def read_labels(path: pathlib.Path | None, classes: int) -> list[str]:
    """One class name a line; ImageNet's names for 1,000 classes, and none for others, where there is no file."""
    if path is None:
        return [name for _, name in imagenet_labels()] if classes == 1000 else []
    labels = path.read_text("utf-8").splitlines()
    if len(labels) != classes:
        raise SystemExit(f"{str(path)!r} names {len(labels)} classes, one a line, and the model has {classes}.")
    return labels


def main() -> None:
    """Parses the arguments and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, help="a .keras file; default: the demo's")
    parser.add_argument("--labels", type=pathlib.Path, help="one class name a line; default: the demo's, or ImageNet's")
    parser.add_argument("--output", type=pathlib.Path, default=PUBLIC, help="the folder; default: the page's")
    options = parser.parse_args()
    path = options.model or DEMO / "model.keras"
    if not path.exists():
        raise SystemExit(f"There is no model at {str(path)!r}. Run `make demo` to train one, or pass --model.")
    model = keras.models.load_model(path)  # `import se_keras` is all it needs to know the layers
    labels = read_labels(options.labels or (None if options.model else DEMO / "labels.txt"), model.output_shape[-1])
    target = export.tflite(model, options.output / "model.tflite", labels=labels or None, overwrite=True)
    print(f"se_keras {se_keras.__version__} wrote {target} and {target.with_suffix('.json').name}.")


if __name__ == "__main__":
    main()
