"""Writes timm_tensors.json: tensors (as counts and a digest) and multiply-adds of timm's newer networks with SE.

Needs timm (and with it PyTorch); neither TensorFlow nor this package. One command:

    python tests/goldens/regenerate_timm_tensors.py
"""

from __future__ import annotations

import csv
import json
import math
import pathlib
import sys

import timm
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from formula import digest_of_shapes  # noqa: E402

TABLE = HERE.parents[1] / "se_keras" / "data" / "timm_checkpoints.csv"


SIZE = 224


def multiply_adds(model: torch.nn.Module) -> int:
    """Returns the multiply-adds of all convolutions and dense layers for one image of SIZE x SIZE pixels."""
    total = 0

    def add(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * math.prod(layer.weight.shape[1:])

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(add)
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, SIZE, SIZE, device="meta"))
    return total


def main() -> None:
    with TABLE.open(encoding="utf-8") as file:
        names = sorted({row["model"] for row in csv.DictReader(file)})
    found = {}
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name)
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items() if tensor.ndim}
        found[name] = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "tensors": len(shapes),
            "digest": digest_of_shapes(shapes),
            "macs": multiply_adds(model),
        }
    text = json.dumps({"source": f"timm {timm.__version__}", "networks": found}, indent=1)
    (HERE / "timm_tensors.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
