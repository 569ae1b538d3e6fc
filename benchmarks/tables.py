"""Writes the tables of README.md and of the documentation between their markers.

python benchmarks/tables.py            # --check only reports whether they are current

They come from the registry, the records of published weights, and benchmarks/results.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"


def models_table() -> str:
    from se_keras import create_model, model_info
    from se_keras.models.registry import NETWORKS

    names = _builders_by_network()
    titles = ("Builder", "Name", "Input", "Parameters", "without SE", "GMACs", "without SE", "Weights (top-1, %)")
    lines = [f"| {' | '.join(titles)} |", "| --- | --- | --: | --: | --: | --: | --: | --- |"]
    for identifier, network in NETWORKS.items():
        if identifier in _newer():
            continue
        with_se, plain = (model_info(create_model(identifier, **options)).total for options in ({}, {"se": None}))
        size = network.preprocessing.size
        lines.append(
            f"| `{names[identifier]}` | `{identifier}` | {size} | {with_se.trainable:,} | {plain.trainable:,} "
            f"| {with_se.macs / 1e9:.3f} | {plain.macs / 1e9:.3f} | {_weights(identifier)} |"
        )
    return "\n".join(lines)


def newer_table() -> str:
    """Returns one row per network that timm has, of after the paper."""
    from se_keras.catalog import known_networks

    names = _builders_by_network()
    lines = [
        "| Builder | Name | Input | Parameters | GMACs | Weights (top-1, %) |",
        "| --- | --- | --: | --: | --: | --- |",
    ]
    for identifier, facts in known_networks().items():
        if identifier in _newer():
            lines.append(
                f"| `{names[identifier]}` | `{identifier}` | {facts.size} | {facts.parameters:,} "
                f"| {facts.macs / 1e9:.3f} | {_weights(identifier)} |"
            )
    return "\n".join(lines)


def _builders_by_network() -> dict[str, str]:
    from se_keras.catalog import known_builders

    return {identifier: builder for builder, identifier in known_builders().items()}


def _newer() -> set[str]:
    from se_keras.catalog import known_builders

    pattern = "|".join(NEWER_FAMILIES.values())
    return {identifier for builder, identifier in known_builders().items() if re.fullmatch(pattern, builder)}


def _weights(identifier: str) -> str:
    """Returns tags and accuracies of a network's published weights, the default first."""
    from se_keras.weights.published import DEFAULT_TAGS, RECORDS

    records = [record for record in RECORDS.values() if record.model == identifier]
    records.sort(key=lambda record: (record.tag != DEFAULT_TAGS.get(identifier), record.tag))
    return ", ".join(f"`{record.tag}` {record.top1:.2f}" if record.top1 else f"`{record.tag}`" for record in records)


def _result(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def _sections(result: dict, unit: str = "s") -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """Yields the titles of a result's sections in a unit, without the unit, and their rows."""
    for title, rows in result.items():
        if title.endswith(f" ({unit})"):
            yield title.removesuffix(f" ({unit})"), rows


def _where(result: dict) -> str:
    return f"{result['machine']}, {result['date']}"


def _heading(texts: Iterable[str], numbers: Iterable[str]) -> list[str]:
    """Returns the first two lines of a table: columns of texts, and then, right-aligned, columns of numbers."""
    texts, numbers = list(texts), list(numbers)
    return [f"| {' | '.join([*texts, *numbers])} |", f"|{' --- |' * len(texts)}{' --: |' * len(numbers)}"]


def grouped_sentence() -> str:
    result = _result("grouped_conv")
    rows = next(value for key, value in result.items() if key.startswith("SE-ResNeXt-50 stage 2"))
    ours, theirs = rows["training step, se_keras"]["median_s"], rows["training step, Keras"]["median_s"]
    where = f"{_where(result)}, `python benchmarks/grouped_conv.py`"
    return f"{ours * 1e3:.0f} ms instead of {theirs:.1f} s ({where})"


def costs_table() -> str:
    lines = _heading(["What it costs"], ["Measured", "Limit"])
    for name in ("build", "weights", "export_cost"):
        result = _result(name)
        lines += [f"| {label} | {row['value']:.3f} | {row['limit']} |" for label, row in result["limits"].items()]
    how = "ratios are medians of interleaved runs, and the export is a single one"
    return "\n".join([*lines, "", f"`make benchmarks` on {_where(result)}; {how}."])


def overhead_table() -> str:
    numbers = ("Without SE, ms", "Deployed, ms", "Deployed, ratio", "Only folded, ratio")
    lines = _heading(["Network", "Precision"], numbers)
    for path in sorted(RESULTS.glob("se_overhead_*.json")):
        result = json.loads(path.read_text("utf-8"))
        for title, rows in _sections(result):
            name, dtype, *_ = title.split(", ")
            plain, hoisted, folded = (rows[form] for form in ("without SE", "SE hoisted", "SE folded"))
            lines.append(
                f"| `{name}` | {dtype} | {plain['median_s'] * 1e3:.1f} | {hoisted['median_s'] * 1e3:.1f} "
                f"| {hoisted['ratio']:.3f} | {folded['ratio']:.3f} |"
            )
    return "\n".join(
        [*lines, "", f"LiteRT, 2 threads, batch 1, `python benchmarks/se_overhead.py` on {_where(result)}."]
    )


INFERENCE_COLUMNS = ("LiteRT", "ONNX Runtime", "OpenVINO", "TensorFlow", "PyTorch compiled")


def inference_table() -> str:
    """Returns one row per network and precision, with a cell per runtime: our time, and its ratios to the others."""
    result = _result("cpu_inference")
    lines = _heading(["Network", "Precision"], [*INFERENCE_COLUMNS, "Our fastest over timm's fastest"])
    for title, rows in _sections(result):
        network, dtype, *_ = title.split(", ")
        cells = [_inference_cell(rows, runtime) for runtime in INFERENCE_COLUMNS]
        best = next((row["over_best_peer"] for row in rows.values() if "over_best_peer" in row), None)
        lines.append(f"| `{network}` | {dtype} | {' | '.join(cells)} | {_ratio_text(best)} |")
    return "\n".join(
        [*lines, "", f"224 px, batch 1, 2 threads, `python benchmarks/cpu_inference.py` on {_where(result)}."]
    )


def _inference_cell(rows: dict[str, dict[str, float]], runtime: str) -> str:
    ours, timm = rows.get(f"{runtime}, ours"), rows.get(f"{runtime}, timm")
    if ours is None:
        return "" if timm is None else f"timm's {_milliseconds(timm)}"
    ratios = (_ratio_text(ours.get(key)) for key in ("over_plain", "over_timm", "over_without_se"))
    return f"{_milliseconds(ours)}<br>{' / '.join(ratios)}"


def in_float_table() -> str:
    """Returns the ratios of our int8 files to those with nothing in float, for the networks where the two differ."""
    columns = ("LiteRT", "ONNX Runtime", "OpenVINO")
    lines = _heading(["Network"], columns)
    for title, rows in _sections(_result("cpu_inference")):
        ratios = [rows[f"{runtime}, ours"].get("over_nothing_in_float") for runtime in columns]
        if any(ratios):
            lines.append(f"| `{title.split(', ')[0]}` | {' | '.join(map(_ratio_text, ratios))} |")
    return "\n".join(lines)


PROFILED_KINDS = ("means", "layers on vectors", "layers on maps", "elementwise", "conversions", "all")


def profile_table() -> str:
    """Returns one row per file: the milliseconds without SE, and those that SE adds, by kind of operation."""
    result = _result("se_profile")
    lines = _heading(["Network", "Precision", "Runtime"], ["Without SE, ms", *PROFILED_KINDS])
    for title, rows in _sections(result, "ms"):
        network, dtype = title.split(", ")
        for runtime, row in rows.items():
            numbers = " | ".join(f"{row.get(kind, 0.0):+.2f}" for kind in PROFILED_KINDS)
            lines.append(f"| `{network}` | {dtype} | {runtime} | {row['without_se']:.2f} | {numbers} |")
    return "\n".join(
        [*lines, "", f"224 px, batch 1, 2 threads, `python benchmarks/se_profile.py` on {_where(result)}."]
    )


def _milliseconds(row: dict[str, float]) -> str:
    return f"{row['median_s'] * 1e3:.1f} ms"


def _ratio_text(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def eight_bits_table() -> str:
    result = _result("int8_networks")
    lines = _heading(["Network, data", "Form"], ["Same class", "Accuracy"])
    for facts in result["networks"].values():
        label = f"`{facts['network']}`, {facts['data']}, {facts['pixels']} pixels"
        for form, row in facts.items():
            if isinstance(row, dict):
                same = f"{row['same class']:.1f}%" if "same class" in row else ""
                lines.append(f"| {label} | {form} | {same} | {row['accuracy']:.1f}% |")
                label = ""
    counts = ", ".join(f"{data}: {count:,}" for data, count in _test_images(result["networks"].values()).items())
    images = f"Test images: {counts}. Calibrated on {result['calibration images']} training images"
    where = f"`python benchmarks/int8_networks.py`, {result['date']}, {result['machine']}"
    return "\n".join([*lines, "", f"{images}; {where}."])


def _test_images(networks: Iterable[dict[str, Any]]) -> dict[str, int]:
    return {facts["data"]: facts["images"] for facts in networks}


TRAINING = {
    "tensorflow": "TensorFlow",
    "tensorflow:mixed_bfloat16": "TensorFlow, bfloat16",
    "jax": "JAX",
    "torch": "PyTorch as backend",
    "timm": "timm",
    "timm:bfloat16": "timm, bfloat16",
    "pipeline": "reading and augmenting alone",
}


def training_table() -> str:
    result = _result("training")
    lines = _heading(["Images per second"], TRAINING.values())
    for title, rows in _sections(result):
        name, batch = title.split(", ")
        cells = [_rate_text(rows.get(kind, {}).get("images_per_s")) for kind in TRAINING]
        lines.append(f"| `{name}`, {batch} | {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", f"`python benchmarks/training.py` on {_where(result)}; timm in PyTorch, channels last, eager."]
    )


def _rate_text(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:,.0f}" if rate > 100 else f"{rate:.1f}"


def gpu_table() -> str:
    """Returns one row per form of the network: milliseconds without and with SE, and their ratio, by batch size."""
    record = _result("gpu")
    by_batch: dict[str, dict[str, Any]] = {}
    for title, rows in record["sections"].items():
        if title.startswith("inference"):
            by_batch.setdefault(title.removesuffix(" (s)").split(", ")[1], {}).update(rows)
    head = [f"{batch}: {cell}" for batch in by_batch for cell in ("without SE, ms", "with SE, ms", "ratio")]
    lines = _heading(["Form"], head)
    for form in dict.fromkeys(name.rpartition(": ")[0] for rows in by_batch.values() for name in rows):
        cells = []
        for rows in by_batch.values():
            plain, excited = rows.get(f"{form}: ResNet-50"), rows.get(f"{form}: SE-ResNet-50")
            times = [f"{1e3 * row['median_s']:.2f}" if row else "-" for row in (plain, excited)]
            cells += [*times, _ratio_text(excited and excited["ratio"])]
        lines.append(f"| {form} | {' | '.join(cells)} |")
    packages = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    where = f"`python benchmarks/gpu.py`, {record['device']}, {record['date']}; {packages}."
    return "\n".join([*lines, "", where])


def gpu_sentence() -> str:
    record = _result("gpu")
    rows = record["sections"]["inference, batch 1 (s)"]
    built, frozen, dense = (
        f"{1e3 * rows[f'{form}: SE-ResNet-50']['median_s']:.1f} ms"
        for form in ("JAX", "JAX, deployed, weights as constants", "JAX, deployed, weights as constants, dense")
    )
    return (
        f"SE-ResNet-50 takes {dense} per image this way, {frozen} deployed, and {built} as built "
        f"(bfloat16, {record['device']}, {record['date']})"
    )


def replaced(text: str, marker: str, content: str, separator: str = "\n") -> str:
    pattern = re.compile(rf"(<!-- {marker}:begin -->).*?(<!-- {marker}:end -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{separator}{content}{separator}{match[2]}", text)


PAPER_FAMILIES = {
    "SE-ResNet": r"SEResNet(18|34|50|101|152)D?",
    "SE-ResNeXt": r"SEResNeXt\d+.*",
    "SENet-154": r"SENet154",
    "SE-Inception": r"SE.*Inception.*",
    "SE-VGG": r"SEVGG16",
    "Mobile": r"SEMobileNet|SEShuffleNet",
    "CIFAR": r"SEResNet(20|32|44|56|110)|SEPreResNet.*|SEWideResNet.*",
}
NEWER_FAMILIES = {
    "SE-ResNeXt-AA": r"SEResNeXtAA.*",
    "ResNet-RS": r"ResNetRS.*",
    "RegNetY": r"RegNetY.*",
    "MobileNetV3": r"(TF)?MobileNetV3.*",
    "EfficientNet": r"(TF)?EfficientNet[BL].*",
    "EfficientNetV2": r"(TF)?EfficientNetV2.*",
    "LCNet, TinyNet, SE-MNASNet, FBNetV3": r"(LCNet|TinyNet|SEMNASNet|FBNetV3).*",
}
FAMILIES = PAPER_FAMILIES | NEWER_FAMILIES
"""Families in the order of the table, and which builders belong to each, as a regular expression."""


def families_table() -> str:
    """Returns one row per family: its networks, their checkpoints, and the accuracy of those for commercial use."""
    from se_keras.catalog import known_builders
    from se_keras.weights.published import NOT_COMMERCIAL, RECORDS

    lines = _heading(["Family", "Builders"], ["Checkpoints", "Top-1, %"])
    for family, pattern in FAMILIES.items():
        builders = [builder for builder in known_builders() if re.fullmatch(pattern, builder)]
        networks = {known_builders()[builder] for builder in builders}
        records = [record for record in RECORDS.values() if record.model in networks]
        accuracies = sorted(record.top1 for record in records if record.top1 and record.license not in NOT_COMMERCIAL)
        span = f"{accuracies[0]:.2f} to {accuracies[-1]:.2f}" if len(accuracies) > 1 else "".join(map(str, accuracies))
        lines.append(f"| {family} | {_shown(builders)} | {len(records) or 'none'} | {span} |")
    return "\n".join(lines)


def _shown(builders: list[str]) -> str:
    if len(builders) > 8:
        return f"`{builders[0]}` to `{builders[-1]}` ({len(builders)})"
    return ", ".join(f"`{builder}`" for builder in builders)


PAGES = {
    "README.md": {"families": families_table, "gpu-speed": gpu_sentence},
    "docs/se-in-your-network.md": {"gpu-speed": gpu_sentence},
    "docs/networks.md": {"models": models_table, "newer": newer_table},
    "docs/accuracy-in-int8.md": {"eight-bits": eight_bits_table},
    "docs/benchmarks.md": {
        "grouped": grouped_sentence,
        "costs": costs_table,
        "overhead": overhead_table,
        "inference": inference_table,
        "in-float": in_float_table,
        "profile": profile_table,
        "training": training_table,
        "gpu": gpu_table,
    },
}
"""Pages, and the functions that write the content between their markers."""
SENTENCES = (grouped_sentence, gpu_sentence)


def main() -> int:
    stale = []
    for name, tables in PAGES.items():
        path = ROOT / name
        old = path.read_text("utf-8")
        new = old
        for marker, content in tables.items():
            new = replaced(new, marker, content(), separator="" if content in SENTENCES else "\n")
        if new != old:
            stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(new, "utf-8")
    if "--check" not in sys.argv:
        return 0
    print(f"{', '.join(stale)}: out of date, run python benchmarks/tables.py" if stale else "all tables are current")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
