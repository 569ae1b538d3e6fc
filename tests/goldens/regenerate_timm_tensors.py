"""Writes timm_tensors.json: names and shapes of the tensors of timm's newer networks with SE, as counts and a digest.

Needs timm (and with it PyTorch); neither TensorFlow nor this package. One command:

    python tests/goldens/regenerate_timm_tensors.py
"""

from __future__ import annotations

import csv
import json
import pathlib
import sys

import timm
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from formula import digest_of_shapes  # noqa: E402

TABLE = HERE.parents[1] / "se_keras" / "data" / "timm_checkpoints.csv"


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
        }
    text = json.dumps({"source": f"timm {timm.__version__}", "networks": found}, indent=1)
    (HERE / "timm_tensors.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
