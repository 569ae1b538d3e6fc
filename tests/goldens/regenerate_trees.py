"""Writes the golden parameter trees that tests/models/test_parameter_trees.py compares with.

Variable names are an API: checkpoints, conversion rules and users' scripts rest on them. Run this only for a change of
names or shapes that is meant, and commit what it writes by itself.

    python tests/goldens/regenerate_trees.py            # all networks
    python tests/goldens/regenerate_trees.py se_vgg16   # these
"""

from __future__ import annotations

import json
import math
import pathlib
import sys

import se_keras

FOLDER = pathlib.Path(__file__).parent / "trees"


def main(names: list[str]) -> None:
    for name in names or se_keras.list_models():
        model = se_keras.create_model(name)
        tree = {weight.path: list(weight.shape) for weight in model.weights}
        lines = [f"    {json.dumps(path)}: {json.dumps(shape)}" for path, shape in tree.items()]
        total = sum(math.prod(shape) for shape in tree.values())
        text = '{{\n  "total": {},\n  "variables": {{\n{}\n  }}\n}}\n'.format(total, ",\n".join(lines))
        (FOLDER / f"{name}.json").write_text(text)
        print(f"{name}: {len(tree)} variables, {total:,} numbers")


if __name__ == "__main__":
    main(sys.argv[1:])
