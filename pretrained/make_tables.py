"""Writes the tables of checkpoints into pretrained/README.md and docs/weights.md, and results-imagenet.csv.

python pretrained/make_tables.py            # --check only reports whether they are current
"""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs/weights.md"


def _of_imagenet() -> list[str]:
    from se_keras.weights.published import RECORDS

    return sorted(name for name, record in RECORDS.items() if record.dataset == "ImageNet-1k")


def table() -> str:
    """Returns a Markdown table with one row per checkpoint."""
    from se_keras.weights.published import DEFAULT_TAGS, RECORDS

    lines = [
        "| Checkpoint | top-1 | top-5 | Size | Parameters | GMACs | From |",
        "| --- | --: | --: | --: | --: | --: | --- |",
    ]
    for name in _of_imagenet():
        record = RECORDS[name]
        accuracy = record.accuracy[0]
        default = " *(default)*" if DEFAULT_TAGS.get(record.model) == record.tag else ""
        lines.append(
            f"| `{name}`{default} | {accuracy.top1:.2f} | {accuracy.top5:.2f} | {accuracy.size} "
            f"| {record.parameters / 1e6:.1f} M | {record.macs / 1e9:.2f} | {record.provenance} |"
        )
    return "\n".join(lines)


def others() -> str:
    """Returns a Markdown table with one row per checkpoint for other classes than ImageNet-1k's."""
    from se_keras.weights import bundled
    from se_keras.weights.published import RECORDS

    lines = [
        "| Checkpoint | Trained on | Classes | Size | Parameters | License |",
        "| --- | --- | --: | --: | --: | --- |",
    ]
    known = {*_of_imagenet(), *(record.identifier for record in bundled.RECORDS)}
    for name in sorted(RECORDS.keys() - known):
        record = RECORDS[name]
        classes = f"{record.classes:,}" if record.classes else "no classifier"
        lines.append(
            f"| `{name}` | {record.dataset} | {classes} | {record.preprocessing.size} "
            f"| {record.parameters / 1e6:.1f} M | {record.license} |"
        )
    return "\n".join(lines)


def bundled() -> str:
    """Returns a Markdown table with one row per checkpoint trained here, as measured by `make_checkpoint.py`."""
    from se_keras.weights import bundled

    lines = [
        "| Checkpoint | SE | Parameters | Epochs | Seed | Accuracy, % | top-5, % | int8 in LiteRT, % | int8 file |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for record in bundled.RECORDS:
        metrics = json.loads((HERE / record.identifier / "metrics.json").read_text("utf-8"))
        seed = json.loads((HERE / record.identifier / "run.json").read_text("utf-8"))["facts"]["seed"]
        fp32, int8 = metrics["fp32"], metrics["int8"]
        excitation = "none" if record.plain else f"reduction {record.reduction}"
        lines.append(
            f"| [`{record.identifier}`]({record.identifier}) | {excitation} | {record.parameters:,} "
            f"| {metrics['epochs']} | {seed} "
            f"| {100 * fp32['accuracy']:.2f} | {100 * fp32['top5']:.2f} | {100 * int8['accuracy']:.2f} "
            f"| {int8['bytes'] / 1e3:.0f} kB |"
        )
    return "\n".join(lines)


def runs() -> str:
    """Returns a Markdown table with one row per run whose weights are not bundled."""
    lines = ["| Run | Epochs | Seed | Accuracy, % | int8 in LiteRT, % |", "| --- | --: | --: | --: | --: |"]
    for folder in sorted((HERE / "runs").iterdir()):
        metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
        seed = json.loads((folder / "run.json").read_text("utf-8"))["facts"]["seed"]
        lines.append(
            f"| [`{folder.name}`](runs/{folder.name}) | {metrics['epochs']} | {seed} "
            f"| {100 * metrics['fp32']['accuracy']:.2f} | {100 * metrics['int8']['accuracy']:.2f} |"
        )
    return "\n".join(lines)


def pairs() -> str:
    """Returns a Markdown table with one row per seed of the short runs with and without SE."""
    lines = ["| Seed | with SE, % | without, % | Difference |", "| --- | --: | --: | --: |"]
    differences = []
    for folder in sorted((HERE / "pairs").glob("se.seed*")):
        seed = folder.name.removeprefix("se.seed")
        metrics = [folder / "metrics.json", HERE / "pairs" / f"plain.seed{seed}" / "metrics.json"]
        with_se, plain = (100 * json.loads(file.read_text("utf-8"))["accuracy"] for file in metrics)
        differences.append(with_se - plain)
        lines.append(f"| {seed} | {with_se:.2f} | {plain:.2f} | {with_se - plain:+.2f} |")
    return "\n".join([*lines, f"| mean | | | {statistics.mean(differences):+.2f} |"])


def study() -> str:
    """Returns a Markdown table of the study with several seeds, and where it was made."""
    sys.path.insert(0, os.fspath(HERE))  # where this script does not run as one
    from study_table import table as study_table

    found = json.loads((HERE / "study-pairs.json").read_text("utf-8"))
    rows = [row for of_seeds in found["runs"].values() for row in of_seeds.values()]
    devices, dates = ({row[key] for row in rows} for key in ("device", "date"))
    return f"{study_table(found)}\n\n{', '.join(sorted(devices))}, {', '.join(sorted(dates))}."


def results() -> str:
    """Returns a CSV table with one row per measured accuracy."""
    from se_keras.weights.published import RECORDS

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["checkpoint", "top1", "top5", "size", "crop", "interpolation", "parameters", "measured_by"])
    for name in _of_imagenet():
        record = RECORDS[name]
        for row in record.accuracy:
            how = record.preprocessing.interpolation
            writer.writerow([name, row.top1, row.top5, row.size, row.crop, how, record.parameters, row.measured_by])
    return stream.getvalue()


def files() -> dict[pathlib.Path, str]:
    """Returns the expected content of each file."""
    card = HERE / "README.md"
    tables = {
        card: {"bundled": bundled(), "runs": runs(), "pairs": pairs(), "study": study()},
        PAGE: {
            "checkpoints": table(),
            "others": others(),
            "bundled": bundled().replace("](se_", "](../pretrained/se_"),
        },
    }
    texts = {path: path.read_text("utf-8") for path in tables}
    for path, marks in tables.items():
        for mark, content in marks.items():
            texts[path] = _with(texts[path], mark, content)
    return {**texts, HERE / "results-imagenet.csv": results()}


def _with(text: str, mark: str, content: str) -> str:
    """Returns a text with the content between two marks replaced."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def main() -> int:
    stale = [path for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is out of date: python pretrained/make_tables.py")
        return int(bool(stale))
    for path, text in files().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
