"""Draws accuracy over cost, and writes the table of recommended networks; both are in docs/networks.md.

    python benchmarks/choice.py            # writes docs/which-network.png and the table

One point per network: its default weights, at the size that they were trained with. The third panel holds the
networks whose int8 latency is in benchmarks/results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from tables import RESULTS, ROOT, replaced

from se_keras.catalog import known_builders, known_networks
from se_keras.weights.published import DEFAULT_TAGS, RECORDS
from se_keras.weights.records import WeightsRecord

PAGE = ROOT / "docs/networks.md"
FIGURE = ROOT / "docs/which-network.png"


class Family(NamedTuple):
    """The beginnings of its networks' names, and how its points look: in a color, and without one."""

    prefixes: tuple[str, ...]
    color: str
    marker: str


# The colors of Okabe and Ito, which color-blind people can tell apart.
FAMILIES = {
    "SE-ResNet, SE-ResNeXt, SENet": Family(("se_", "senet"), "#000000", "s"),
    "SE-ResNeXt-AA": Family(("seresnextaa",), "#D55E00", "P"),
    "ResNet-RS": Family(("resnetrs",), "#999999", "X"),
    "RegNetY": Family(("regnety",), "#0072B2", "o"),
    "MobileNetV3": Family(("mobilenetv3", "tf_mobilenetv3"), "#CC79A7", "v"),
    "EfficientNet": Family(("efficientnet_", "tf_efficientnet_"), "#009E73", "^"),
    "EfficientNetV2": Family(("efficientnetv2", "tf_efficientnetv2"), "#56B4E9", "D"),
    "LCNet, TinyNet, SE-MNASNet, FBNetV3": Family(("lcnet", "tinynet", "semnasnet", "fbnetv3"), "#E69F00", "*"),
}


class Recommendation(NamedTuple):
    """A network for a use."""

    use: str
    builder: str
    reason: str


RECOMMENDATIONS = (
    Recommendation("Phone", "MobileNetV3Large", "the most accurate below 300 million MACs"),
    Recommendation("Phone, tiny", "TinyNetC", "the most accurate up to 100 million MACs"),
    Recommendation("Browser", "EfficientNetB0", "11 MB to download in fp16"),
    Recommendation("Server CPU", "SEResNet50", "3 to 5 times as fast in int8 as in fp32 ([measured](benchmarks.md))"),
    Recommendation("Server GPU", "RegNetY160", "a sixth of the multiply-adds of the most accurate"),
    Recommendation("Highest accuracy", "SEResNeXtAA201D_32x8d", "the most accurate below 300 million parameters"),
    Recommendation("Few photos of your own", "TFEfficientNetV2B3", "saw ImageNet-21k before ImageNet-1k"),
    Recommendation(
        "Research on SE",
        "SEResNet20",
        "a pair with and without SE, trained alike, comes with the package",
    ),
)

# Texts at points, and where each begins: in points of type from the marker.
Labels = Mapping[str, tuple[str, tuple[int, int]]]
LABELS: Labels = {
    "tinynet_c": ("TinyNet-C", (-46, 26)),
    "mobilenetv3_large_100": ("MobileNetV3-L", (-106, 18)),
    "efficientnet_b0": ("EfficientNet-B0", (-66, 54)),
    "tf_efficientnetv2_b3": ("EfficientNetV2-B3", (-140, 66)),
    "se_resnet50": ("SE-ResNet-50", (34, -62)),
    "regnety_160": ("RegNetY-16GF", (-20, -148)),
    "seresnextaa201d_32x8d": ("SE-ResNeXt-AA-201-D", (-122, 16)),
}
TIMED_LABELS: Labels = {
    "se_resnet50": ("SE-ResNet-50", (6, -18)),
    "se_resnext50": ("SE-ResNeXt-50", (-46, 12)),
    "senet154": ("SENet-154", (-60, -20)),
}


def default_weights() -> list[WeightsRecord]:
    """Returns the record that `weights="imagenet"` stands for, of every network that has one."""
    return [RECORDS[f"{model}.{tag}"] for model, tag in DEFAULT_TAGS.items()]


def family_of(model: str) -> str:
    """Returns the key in `FAMILIES` of a network."""
    (family,) = (name for name, one in FAMILIES.items() if model.startswith(one.prefixes))
    return family


def int8_milliseconds() -> dict[str, float]:
    """Returns the measured time of an image in int8, deployed, by network: LiteRT, 2 threads."""
    found = {}
    for path in sorted(RESULTS.glob("se_overhead_*.json")):
        for title, rows in json.loads(path.read_text("utf-8")).items():
            network, *settings = title.split(", ")
            if settings[:1] == ["int8"] and "SE hoisted" in rows:
                found[network] = rows["SE hoisted"]["median_s"] * 1e3
    return found


def table() -> str:
    """Returns the recommended networks as Markdown."""
    lines = [
        "| Use | Builder | Top-1, % | Size | Parameters | GMACs | Why |",
        "| --- | --- | --: | --: | --: | --: | --- |",
    ]
    for one in RECOMMENDATIONS:
        network = known_builders()[one.builder]
        record = RECORDS[f"{network}.{DEFAULT_TAGS.get(network, 'cifar10')}"]
        lines.append(
            f"| {one.use} | `{one.builder}` | {record.top1:.1f} | {record.accuracy[0].size} "
            f"| {record.parameters / 1e6:.1f} M | {record.macs / 1e9:.2f} | {one.reason} |"
        )
    return "\n".join(lines)


def draw() -> None:
    """Draws the figure."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    records, times = default_weights(), int8_milliseconds()
    timed = [weights_of_measured(model) for model in times]
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 6.6), width_ratios=(5, 5, 2.4), layout="constrained")
    _panel(axes[0], "parameters, millions", {one: one.parameters / 1e6 for one in records}, LABELS)
    _panel(axes[1], "multiply-adds per image, billions", {one: one.macs / 1e9 for one in records}, LABELS)
    _panel(axes[2], "int8 time per image, ms", {one: times[one.model] for one in timed}, TIMED_LABELS)
    for axis, ticks in zip(axes, ((2, 5, 10, 20, 50, 100), (0.05, 0.2, 1, 5, 20, 100), (10, 20, 50)), strict=True):
        axis.set_xticks(ticks, map(str, ticks))
    axes[0].set_ylabel("top-1 accuracy on ImageNet, %", fontsize=13)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=12)
    figure.savefig(FIGURE, dpi=100, metadata={"Software": None})


def weights_of_measured(model: str) -> WeightsRecord:
    """Returns the most accurate weights of a network in the structure whose time was measured, the builder's own."""
    macs = known_networks()[model].macs
    records = (one for one in RECORDS.values() if one.model == model and one.macs == macs)
    return max(records, key=lambda one: one.top1 or 0)


def _panel(axis: Any, title: str, costs: Mapping[WeightsRecord, float], labels: Labels) -> None:
    for name, family in FAMILIES.items():
        shown = [one for one in costs if family_of(one.model) == name]
        x, y = [costs[one] for one in shown], [one.top1 for one in shown]
        size = 120 if family.marker in "*PX" else 55
        axis.scatter(
            x, y, size, family.color, marker=family.marker, label=name, edgecolors="white", linewidths=0.7, zorder=2
        )
    for one, cost in costs.items():
        if one.model in labels:
            text, offset = labels[one.model]
            line = {"arrowstyle": "-", "color": "#555555", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 5}
            place = {"xytext": offset, "textcoords": "offset points"}
            axis.annotate(text, (cost, one.top1), **place, arrowprops=line, fontsize=12, zorder=3)
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xlabel(title, fontsize=13)
    axis.set_ylim(56, 91)
    axis.grid(color="#dddddd", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=12)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> int:
    draw()
    PAGE.write_text(replaced(PAGE.read_text("utf-8"), "choice", table()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
