"""Writes the goldens of preprocessing: what timm makes of a JPEG file, and what its networks then answer.

Needs timm (and with it PyTorch and torchvision); neither TensorFlow nor this package. One command:

    python tests/goldens/regenerate_preprocessing.py [folder of JPEG files]

The photo is a mosaic of the bundled CIFAR-10 images, enlarged; it is made if it is missing. With
a folder, timm's arrays of its files go to preprocessing_folder.npz in the current directory.
"""

from __future__ import annotations

import csv
import pathlib
import sys

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from formula import fill, thin_image  # noqa: E402

PHOTO = HERE / "photo.jpg"
SAMPLE = HERE.parents[1] / "se_keras/data/cifar10_sample.npz"
TABLE = HERE.parents[1] / "se_keras/data/timm_checkpoints.csv"
# Every (size, crop, interpolation) that a published checkpoint was trained with; those of TABLE come with them.
CASES = (
    (224, 0.875, "bilinear"),
    (224, 0.875, "bicubic"),
    (224, 0.95, "bicubic"),
    (160, 0.95, "bicubic"),
    (256, 0.95, "bicubic"),
)
NETWORKS = ("legacy_seresnet18", "seresnet18")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cases() -> list[tuple[int, float, str]]:
    with TABLE.open(encoding="utf-8") as file:
        rows = [(int(row["size"]), float(row["crop"]), row["interpolation"]) for row in csv.DictReader(file)]
    return [*CASES, *sorted({*rows} - {*CASES})]


def make_photo() -> None:
    images = np.load(SAMPLE)["x_test"][:48]
    tiles = [Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC) for image in images]
    mosaic = Image.new("RGB", (8 * 64 - 12, 6 * 64 - 9))
    for place, tile in enumerate(tiles):
        mosaic.paste(tile, (place % 8 * 64, place // 8 * 64))
    mosaic.save(PHOTO, quality=92)


def prepared(path: pathlib.Path, size: int, crop: float, interpolation: str) -> torch.Tensor:
    """The file through timm's evaluation transform, shape (1, 3, size, size)."""
    options = {"input_size": (3, size, size), "crop_pct": crop, "interpolation": interpolation}
    transform = create_transform(**options, mean=MEAN, std=STD)
    return transform(Image.open(path).convert("RGB"))[None]


def pixels(tensor: torch.Tensor) -> np.ndarray:
    """Undoes the normalization: uint8, shape (size, size, 3)."""
    image = tensor[0].permute(1, 2, 0).numpy() * STD + MEAN
    return np.rint(image * 255).astype("uint8")


def main() -> None:
    if not PHOTO.exists():
        make_photo()
    arrays: dict[str, np.ndarray] = {"source": np.array(f"timm {timm.__version__}")}
    for size, crop, interpolation in cases():
        image = pixels(prepared(PHOTO, size, crop, interpolation))
        arrays[f"{size}/{crop}/{interpolation}"] = thin_image(image)
    for name in NETWORKS:
        model = timm.create_model(name).eval()
        state = {key: fill(key, tuple(value.shape)) for key, value in model.state_dict().items() if value.ndim}
        model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=False)
        with torch.no_grad():
            arrays[f"logits/{name}"] = model(prepared(PHOTO, *CASES[1]))[0].numpy()
    np.savez_compressed(HERE / "preprocessing.npz", **arrays)
    if sys.argv[1:]:
        files = sorted(pathlib.Path(sys.argv[1]).glob("*.jpg"))
        stored = {file.name: pixels(prepared(file, *CASES[1])) for file in files}
        np.savez_compressed("preprocessing_folder.npz", **stored)


if __name__ == "__main__":
    main()
