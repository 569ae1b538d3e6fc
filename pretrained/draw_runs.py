"""Draws the curves of several runs into one figure, and prints their final accuracies.

python pretrained/draw_runs.py curves.png "from CIFAR-10=runs/a" "from scratch=runs/b" --title "Flowers, 64 px"
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    from se_keras.training.figures import draw_curves
    from se_keras.training.state import read_progress

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture")
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    folders = dict(run.split("=", 1) for run in options.runs)
    histories = {name: read_progress(pathlib.Path(run) / "state.safetensors").history for name, run in folders.items()}
    draw_curves(histories, options.picture, title=options.title)
    for name, rows in histories.items():
        print(f"{name}: validation accuracy {rows[-1]['val_accuracy']:.2%} after {len(rows)} epochs")


if __name__ == "__main__":
    main()
