"""SE-ResNet-50 on a GPU, on JAX in bfloat16: the cost of SE in inference, and images per second in training.

    python benchmarks/gpu.py --peers python           # compared with timm's compiled networks in that Python
    python benchmarks/gpu.py --allow-cpu              # a trial of the script itself, on small images

Each contestant is a separate process; they take turns. Results are saved after each batch size, and another run on the
same GPU with the same packages continues with the missing ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from contestant import installed, started, take_turns
from timing import RESULTS, summary, where

HERE = pathlib.Path(__file__).parent
WORKER = HERE / "gpu_worker.py"
INFERENCE = {
    "JAX": "inference:jax",
    "JAX, deployed": "inference:jax:deployed",
    "JAX, deployed, weights as constants": "inference:jax:frozen",
    "timm, compiled": "inference:timm",
    "timm, compiled, CUDA graphs": "inference:timm:graphs",
}
OURS, PEER = "JAX", "timm, compiled"
TRAINING = {OURS: "training:jax", PEER: "training:timm"}
WITH, WITHOUT = "SE-ResNet-50", "ResNet-50"
OVERHEAD_LIMIT = 1.05
DEVICE = (
    "import json, jax; d = jax.devices()[0]; print(json.dumps([d.platform, d.device_kind, jax.__version__]))",
    "import json, torch, timm; c = torch.cuda.is_available(); "
    "print(json.dumps([torch.cuda.get_device_name() if c else 'cpu', torch.__version__, timm.__version__]))",
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan of the measurements.

    Args:
        size: Height and width of the images in pixels.
        inference: Calls per measurement, by batch size.
        training: Steps per measurement, by batch size.
        rounds: Measurements of each contestant.
    """

    size: int
    inference: dict[int, int]
    training: dict[int, int]
    rounds: int


FULL = Plan(224, {1: 50, 64: 20}, {64: 10, 128: 10, 256: 5}, rounds=30)
TRIAL = Plan(32, {1: 2}, {2: 1}, rounds=3)


def _said(python: str, code: str) -> list[str]:
    """Returns the output of code in a process that releases the GPU's memory when it ends."""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{python} cannot take part: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measured(kinds: dict[tuple[str, str], tuple[str, str]], batch: int, calls: int, plan: Plan) -> dict:
    """Times the contestants that start: maps (framework, network) to seconds, given Python and kind."""
    commands = {
        (framework, network): [
            python,
            WORKER,
            kind,
            "se" if network == WITH else "plain",
            *map(str, (batch, plan.size, calls)),
        ]
        for (framework, network), (python, kind) in kinds.items()
    }
    return take_turns(started(commands), rounds=plan.rounds)


def measure_inference(batch: int, plan: Plan, peers: str | None) -> dict[str, dict[str, Any]]:
    """Measures the network with and without SE, and their ratio, by framework and form."""
    kinds = {
        (framework, network): (peers if "timm" in framework else sys.executable, kind)
        for framework, kind in INFERENCE.items()
        for network in (WITHOUT, WITH)
        if peers or "timm" not in framework
    }
    seconds = _measured(kinds, batch, plan.inference[batch], plan)
    rows = {}
    for framework in INFERENCE:
        pair = {network: seconds[framework, network] for network in (WITHOUT, WITH) if (framework, network) in seconds}
        if len(pair) == 2:
            rows |= {f"{framework}: {name}": row for name, row in summary(pair, reference=WITHOUT).items()}
    return rows


def measure_training(batch: int, plan: Plan, peers: str | None) -> dict[str, dict[str, Any]]:
    """Measures a training step, and images per second, by framework."""
    pythons = {OURS: sys.executable} | ({PEER: peers} if peers else {})
    kinds = {(framework, WITH): (python, TRAINING[framework]) for framework, python in pythons.items()}
    seconds = {name: values for (name, _), values in _measured(kinds, batch, plan.training[batch], plan).items()}
    rows = summary(seconds, reference=next(iter(seconds))) if seconds else {}
    return {f"{name}: {WITH}": {**row, "images_per_s": batch / row["median_s"]} for name, row in rows.items()}


def goals(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the measured ratios that have goals, with their limits."""
    found = {}
    for title, rows in sections.items():
        if title.startswith("inference"):
            for framework in INFERENCE:
                row = rows.get(f"{framework}: {WITH}")
                if row:
                    limit = {"limit": OVERHEAD_LIMIT} if "JAX" in framework else {}
                    found[f"{title}, {framework}: with SE over without"] = {"value": row["ratio"], **limit}
        elif f"{OURS}: {WITH}" in rows and f"{PEER}: {WITH}" in rows:
            ours, peer = rows[f"{OURS}: {WITH}"]["median_s"], rows[f"{PEER}: {WITH}"]["median_s"]
            found[f"{title}: our step over timm's"] = {"value": ours / peer, "limit": 1.0}
    return found


def show(record: dict[str, Any]) -> int:
    """Prints the results; returns 1 if a goal is missed."""
    for title, rows in record["sections"].items():
        print(title)
        for name, row in rows.items():
            print(f"  {name:<52}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    missed = False
    for label, goal in record["goals"].items():
        over = goal["value"] > goal.get("limit", float("inf"))
        missed = missed or over
        limit = f", limit {goal['limit']}" if "limit" in goal else ""
        print(f"{'over' if over else 'ok' if limit else '':<5}{label}: {goal['value']:.3f}{limit}")
    return int(missed)


def _peers_that_start(python: str | None) -> str | None:
    """Returns the peers' Python if it has the required packages; else prints the reason and returns None."""
    lacking = sorted({"torch", "timm"} - installed(python, ("torch", "timm")).keys()) if python else []
    if lacking:
        print(f"  left out: the peers of {python} (it lacks {' and '.join(lacking)})", flush=True)
    return None if lacking else python


def _setting(peers: str | None) -> dict[str, Any]:
    """Returns the GPU, packages, and image size, which must match for results to share a file."""
    platform, device, jax_version = _said(sys.executable, DEVICE[0])
    packages = {"jax": jax_version}
    if peers:
        of_peer, packages["torch"], packages["timm"] = _said(peers, DEVICE[1])
        if platform != "cpu" and of_peer == "cpu":
            raise RuntimeError(f"PyTorch in {peers} found no GPU; install a GPU build, or omit --peers.")
    size = TRIAL.size if platform == "cpu" else FULL.size
    return {**where(("keras", "numpy"), packages), "device": device, "size": size}


def _earlier(path: pathlib.Path, setting: dict[str, Any]) -> dict[str, Any]:
    """Returns the sections of an earlier run in the same setting."""
    if not path.exists():
        return {}
    then = json.loads(path.read_text("utf-8"))
    return then["sections"] if all(then.get(key) == setting[key] for key in ("device", "packages", "size")) else {}


def measure(record: dict[str, Any], plan: Plan, peers: str | None, path: pathlib.Path) -> None:
    """Adds the missing sections to the record, and writes it after each."""
    tasks = (("inference", plan.inference, measure_inference), ("training", plan.training, measure_training))
    for task, batches, measured in tasks:
        for batch in batches:
            title = f"{task}, batch {batch} (s)"
            if title in record["sections"]:
                continue
            print(title, flush=True)
            rows = measured(batch, plan, peers)
            if rows:
                record["sections"][title] = rows
                record["goals"] = goals(record["sections"])
                _write(path, record)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of an environment with PyTorch and timm")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--out", type=pathlib.Path, help="file for the results; default: benchmarks/results/gpu.json")
    parser.add_argument("--allow-cpu", action="store_true", help="small images, to try the script without a GPU")
    options = parser.parse_args()
    options.peers = _peers_that_start(options.peers)
    setting = _setting(options.peers)
    on_gpu = setting["size"] == FULL.size
    if not on_gpu and not options.allow_cpu:
        print("JAX found no GPU; nothing was measured. Use `--allow-cpu` to try the script on small images.")
        return 0
    plan = FULL if on_gpu else TRIAL
    plan = dataclasses.replace(plan, rounds=options.rounds or plan.rounds)
    path = options.out or (RESULTS / "gpu.json" if on_gpu else _trial_file())
    record = {**setting, "goals": {}, "sections": _earlier(path, setting)}
    record["goals"] = goals(record["sections"])
    measure(record, plan, options.peers, path)
    code = show(record)
    print(f"written: {path}")
    return code


def _trial_file() -> pathlib.Path:
    return pathlib.Path(tempfile.mkdtemp()) / "gpu.json"


def _write(path: pathlib.Path, record: dict[str, Any]) -> None:
    from se_keras.files import replacing

    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ.setdefault("KERAS_BACKEND", "jax")
    sys.exit(main())
