"""The table of a study of `study_pairs.py`, from its results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

PLAIN = "plain"
# 97.5 % quantiles of Student's t by the number of values (degrees of freedom and 1).
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


def table(found: dict[str, Any]) -> str:
    """Returns a Markdown table: mean and standard deviation over the seeds; differences pair equal seeds.

    The 95 % interval of the mean difference is that of Student's t.
    """
    facts = found["facts"]
    lines = [
        f"{facts['epochs']} epochs of the recipe `{facts['recipe']}`, {facts['training_images']:,} training and "
        f"{facts['test_images']:,} test images, {facts['precision']}.",
        "",
        "| Network | Variant | Parameters | Seeds | Accuracy, % | Over plain, points | 95 % interval | Seconds |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for key, rows in found["runs"].items():
        network, variant = key.split("/")
        values = {seed: 100 * row["accuracy"] for seed, row in rows.items()}
        plain = {seed: 100 * row["accuracy"] for seed, row in found["runs"].get(f"{network}/{PLAIN}", {}).items()}
        paired = [values[seed] - plain[seed] for seed in values if seed in plain]
        over = "" if variant == PLAIN or not paired else _mean_and_deviation(paired, sign="+")
        seconds = sum(row["seconds_of_all"] / row["trained_together"] for row in rows.values())
        lines.append(
            f"| {network} | `{variant}` | {next(iter(rows.values()))['parameters']:,} | {len(rows)} "
            f"| {_mean_and_deviation(list(values.values()))} "
            f"| {over} | {_interval(paired) if over else ''} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def _interval(differences: Sequence[float]) -> str:
    """Returns the 95 % interval of the mean, with Student's t for the number of differences."""
    count = len(differences)
    if count not in STUDENT:
        return ""
    mean, half = statistics.mean(differences), STUDENT[count] * statistics.stdev(differences) / math.sqrt(count)
    return f"{mean - half:+.2f} to {mean + half:+.2f}"


def _mean_and_deviation(values: Sequence[float], *, sign: str = "") -> str:
    mean = f"{statistics.mean(values):{sign}.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
