"""Time of a training step: our networks on each Keras backend, PyTorch with timm, and the input pipeline.

    python benchmarks/training.py                              # our networks
    python benchmarks/training.py --peers peers/bin/python     # and timm's, see make_peers.py

Each contestant is a separate process; they take turns, one step each. Results are seconds per step, and images per
second.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

from contestant import installed, started, take_turns
from timing import report, summary

WORKER = pathlib.Path(__file__).with_name("training_worker.py")
BATCHES = {"se_resnet20": 128, "se_resnet50": 16}
BACKENDS = ("tensorflow", "tensorflow:mixed_bfloat16", "jax", "torch", "pipeline")
PEERS = ("timm", "timm:bfloat16")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of an environment with timm")
    parser.add_argument("--kinds", nargs="+", default=BACKENDS, help="see training_worker.py")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    sections, limits = {}, {}
    for network, batch in BATCHES.items():
        makers = dict.fromkeys(options.kinds, sys.executable)
        if options.peers:
            makers |= dict.fromkeys(PEERS, options.peers)
        commands = {kind: [python, WORKER, kind, network, str(batch)] for kind, python in makers.items()}
        seconds = take_turns(started(commands), rounds=options.rounds)
        if not seconds:
            continue
        rows = summary(seconds, reference=next(iter(seconds)))
        for row in rows.values():
            row["images_per_s"] = batch / row["median_s"]
        sections[f"{network}, batches of {batch} (s)"] = rows
        steps = [rows[kind]["median_s"] for kind in rows if kind.startswith(("tensorflow", "jax", "torch"))]
        if "pipeline" in rows and steps:
            limits[f"{network}: three times the pipeline over the fastest step"] = (
                3 * rows["pipeline"]["median_s"] / min(steps),
                1.0,
            )
        for precision, ours in (("", ("tensorflow", "jax", "torch")), (":bfloat16", ("tensorflow:mixed_bfloat16",))):
            peer = f"timm{precision}"
            if peer in rows and set(ours) & set(rows):
                least = min(rows[kind]["median_s"] for kind in ours if kind in rows)
                limits[f"{network}{precision}: our best backend over PyTorch with timm"] = (
                    least / rows[peer]["median_s"],
                    1 / 0.95,
                )
    of_peers = installed(options.peers, ("torch", "timm")) if options.peers else {}
    packages = {"torch of the peers" if name == "torch" else name: version for name, version in of_peers.items()}
    return report("training", sections, limits=limits, packages=packages)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
