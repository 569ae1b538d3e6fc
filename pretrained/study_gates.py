"""Studies the gates of a network on labeled images: figures, their numbers, and tables for a page.

    python pretrained/study_gates.py se_resnet20.cifar10 --data cifar10.npz --out pretrained/gates
    python pretrained/study_gates.py run/model.keras --data flowers --out pretrained/gates/flowers

The output folder gets the figures of `se_keras.analysis` with their CSV files, `numbers.json` with all other
measurements and their versions, and `tables.md`. `--page PAGE.md --mark NAME` also inserts the tables into a page,
between the lines `<!-- NAME blocks:begin -->` and `<!-- NAME blocks:end -->`, and those of `NAME pruning`. The study
uses the validation images, held in memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BOUNDS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .keras file, or published weights such as se_resnet20.cifar10")
    parser.add_argument("--data", required=True, help="as in `se-keras train`")
    parser.add_argument("--title", help="name of the images in figures and tables (default: the data's name)")
    parser.add_argument("--images", type=int, help="number of validation images, evenly spaced (default: all)")
    parser.add_argument("--pruning-images", type=int, default=5000, help="likewise, for the cost of pruning")
    parser.add_argument("--timed-calls", type=int, default=20, help="timed calls; 0 skips timing on a busy machine")
    parser.add_argument("--page", type=pathlib.Path, help="a Markdown file that also gets the tables")
    parser.add_argument("--mark", default="gates", help="prefix of the marks in that file")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    numbers = study(options)
    tables = {"blocks": blocks_table(numbers), "pruning": pruning_table(numbers)}
    write(options.out / "numbers.json", json.dumps(numbers, indent=1) + "\n")
    write(options.out / "tables.md", "\n".join(tables.values()))
    if options.page:
        text = options.page.read_text("utf-8")
        for name, content in tables.items():
            text = marked(text, f"{options.mark} {name}", content)
        write(options.page, text)
    print("\n".join(tables.values()))


def study(options: argparse.Namespace) -> dict[str, Any]:
    """Draws the figures, and returns the measurements."""
    import se_keras
    from se_keras.analysis import collect_gates, plot_gates, plot_image, plot_pruning
    from se_keras.analysis.tables import stage_of
    from se_keras.cli.models import load_file, published
    from se_keras.preprocessing import preprocessing_of
    from se_keras.surgery import pruning_curve
    from se_keras.training.run_folder import versions

    started = time.perf_counter()
    model = load_file(options.model) if options.model.endswith(".keras") else published(options.model)
    source, name = open_images(options.data)
    title = options.title or f"{name} validation"
    images, labels = prepared_images(source, preprocessing_of(model), options.images)
    # An .npz file of images often has no class names; the model has them.
    names = se_keras.get_class_names(model)
    names = names if len(names) == len(source.class_names) else source.class_names
    classes = {index: names[index] for index in sorted({int(label) for label in labels})}
    gates = collect_gates(model, images, labels=labels, class_names=classes, title=title, batch_size=100, samples=1)
    plot_gates(gates, options.out, overwrite=True)
    shown, its_class = images[gates.sample_indices[0]], gates.class_names[int(gates.sample_labels[0])]
    plot_image(model, shown, gates, options.out / "image.png", title=its_class, overwrite=True)

    some = evenly_spaced(len(images), options.pruning_images)
    costs = {
        "labels": labels[some],
        "count_macs": lambda network: se_keras.model_info(network).total.macs,
        "batch_size": 100,
        "timed_calls": options.timed_calls,
    }
    curve = pruning_curve(model, images[some], bounds=BOUNDS, **costs)
    plot_pruning(curve, options.out / "pruning.png", title=title, overwrite=True)
    reports = {f"{report.bound:g}": report for report in curve}
    last_stage = stage_of(gates.blocks[-1].name)
    if last_stage:
        own = [block.name for block in gates.blocks if stage_of(block.name) == last_stage]
        (reports[f"{last_stage}, all blocks"],) = pruning_curve(
            model, images[some], bounds=[math.inf], blocks=own, **costs
        )
    units = unit_activity(model, images, [block.name for block in gates.blocks])
    return {
        "network": options.model if not options.model.endswith(".keras") else model.name,
        "parameters": model.count_params(),
        "data": title,
        "images": gates.images,
        "classes": list(gates.class_names),
        "chance": (len(gates.class_names) - 1) / max(gates.images - 1, 1),
        "accuracy": accuracy(model, images, labels),
        "blocks": [{**described(block), **units.get(block.name, {})} for block in gates.blocks],
        "pruning": [pruned(label, report) for label, report in reports.items()],
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.perf_counter() - started, 1),
    }


def open_images(data: str) -> tuple[Any, str]:
    """Returns the validation images, and the data's name without folders and extension."""
    from se_keras.training.sources import open_data

    return open_data(data).validation, pathlib.Path(data).stem


def prepared_images(source: Any, prepared: Any, most: int | None) -> tuple[Any, Any]:
    """Returns evenly spaced images of a source, uint8, (n, height, width, 3), at the network's size, and labels."""
    import numpy as np

    from se_keras.training.batches import fitted

    chosen = evenly_spaced(len(source), most or len(source))
    return np.stack([fitted(source[int(index)], prepared) for index in chosen]), source.labels[chosen]


def evenly_spaced(count: int, most: int) -> Any:
    """Returns evenly spaced indices of at most `most` of `count` images, because folders list class by class."""
    import numpy as np

    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def accuracy(model: Any, images: Any, labels: Any) -> float:
    return float((model.predict(images, batch_size=100, verbose=0).argmax(-1) == labels).mean())


def unit_activity(model: Any, images: Any, names: list[str]) -> dict[str, dict[str, int]]:
    """Returns, for each block, the number of its units, and the number of units that are off for every image."""
    import keras
    import numpy as np

    blocks = [layer for layer in model.layers if layer.name in names and layer.squeeze == "avg"]
    if not blocks:
        return {}
    squeezed = [
        keras.layers.GlobalAveragePooling2D(data_format=block.data_format, dtype="float32")(block.input)
        for block in blocks
    ]
    summaries = keras.Model(model.inputs, squeezed).predict(images, batch_size=100, verbose=0)
    found = {}
    for block, summary in zip(blocks, summaries if isinstance(summaries, list) else [summaries], strict=True):
        hidden = summary @ keras.ops.convert_to_numpy(block.reduce_kernel)
        if block.use_bias:
            hidden = hidden + keras.ops.convert_to_numpy(block.reduce_bias)
        active = keras.ops.convert_to_numpy(block.activation(keras.ops.convert_to_tensor(hidden))) != 0
        found[block.name] = {"units": active.shape[1], "units_always_off": int(np.sum(~active.any(axis=0)))}
    return found


def described(block: Any) -> dict[str, Any]:
    return {
        "block": block.name,
        "channels": block.channels,
        "mean": float(block.total_mean.mean()),
        "std": float(block.total_std.mean()),
        "greatest_std": float(block.total_std.max()),
        "class_specificity": float(block.class_specificity),
        "above_0.99": float(block.total_high_share.mean()),
        "below_0.01": float(block.total_low_share.mean()),
    }


def pruned(label: str, report: Any) -> dict[str, Any]:
    return {
        "bound": label,
        "images": report.images,
        "folded": len(report.pruned),
        "blocks": len(report.changes),
        "accuracy": list(report.accuracy),
        "same_class": report.agreement,
        "parameters": list(report.parameters),
        "macs": list(report.macs),
        "milliseconds": report.seconds and [1e3 * seconds for seconds in report.seconds],
    }


def blocks_table(numbers: dict[str, Any]) -> str:
    """Returns a Markdown table with one row per block."""
    lines = [
        f"`{numbers['network']}` on {numbers['images']:,} images ({numbers['data']}), accuracy "
        f"{100 * numbers['accuracy']:.2f}%:",
        "",
        "| Block | Channels | Units (always off) | Mean gate | Variance between classes | Above 0.99 | Below 0.01 "
        "| Largest deviation of a gate |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in numbers["blocks"]:
        units = f"{row['units']} ({row['units_always_off']})" if "units" in row else ""
        shares = [percent(row[key]) for key in ("class_specificity", "above_0.99", "below_0.01")]
        lines.append(
            f"| `{row['block'].removesuffix('_se')}` | {row['channels']} | {units} | {row['mean']:.3f} "
            f"| {' | '.join(shares)} | {rounded(row['greatest_std'])} |"
        )
    chance = percent(numbers["chance"])
    lines += ["", f"By chance alone, {chance} of the variance would lie between the {len(numbers['classes'])} classes."]
    return "\n".join(lines) + "\n"


def pruning_table(numbers: dict[str, Any]) -> str:
    """Returns a Markdown table with one row per bound."""
    rows = numbers["pruning"]
    first = rows[0]
    lines = [
        f"On {first['images']:,} of these images, which also determined which blocks were folded:",
        "",
        "| Bound | Blocks folded | Accuracy | Same class | Parameters |",
        "| --: | --: | --: | --: | --: |",
        f"| none | 0 of {first['blocks']} | {100 * first['accuracy'][0]:.2f}% | | {first['parameters'][0]:,} |",
    ]
    lines += [
        f"| {row['bound']} | {row['folded']} | {100 * row['accuracy'][1]:.2f}% | {100 * row['same_class']:.1f}% "
        f"| {row['parameters'][1]:,} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def percent(share: float) -> str:
    return "0" if share == 0 else f"{100 * share:.0f}%" if share >= 0.02 else f"{100 * share:.2f}%"


def rounded(deviation: float) -> str:
    return "0" if deviation < 1e-6 else f"{deviation:.3f}" if deviation >= 1e-3 else f"{deviation:.0e}"


def marked(text: str, mark: str, content: str) -> str:
    """Returns a text with the content between the two lines of a mark replaced."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"the page must have one line {begin} and one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}{end}{rest.split(end)[1]}"


def write(path: pathlib.Path, text: str) -> None:
    from se_keras.files import replacing

    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
