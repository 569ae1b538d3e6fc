"""Writes the goldens timm_*.npz: what timm's networks compute, with weights and images by formula.

Needs timm (and with it PyTorch); neither TensorFlow nor this package. One command:

    python tests/goldens/regenerate_timm.py [model ...]
"""

from __future__ import annotations

import pathlib
import string
import sys

import numpy as np
import timm
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from formula import NETWORK_GAINS, fill, images, thin  # noqa: E402

MODELS = (
    "legacy_seresnet18",
    "legacy_seresnet34",
    "legacy_seresnet50",
    "legacy_seresnet101",
    "legacy_seresnet152",
    "legacy_seresnext26_32x4d",
    "legacy_seresnext50_32x4d",
    "legacy_seresnext101_32x4d",
    "legacy_senet154",
    "seresnet18",
    "seresnet34",
    "seresnet50",
    "seresnet101",
    "seresnet152",
    "seresnet152d",
    "seresnext26d_32x4d",
    "seresnext26t_32x4d",
    "seresnext50_32x4d",
    "seresnext101_32x4d",
    "seresnext101_64x4d",
    "seresnext101_32x8d",
    "seresnext101d_32x8d",
    "senet154",
    "seresnextaa101d_32x8d",
    "resnetrs50",
    "regnety_004",
    "regnety_008_tv",
    "regnety_032",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "tf_mobilenetv3_large_100",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "efficientnetv2_rw_t",
    "tf_efficientnetv2_b0",
    "semnasnet_100",
    "lcnet_050",
    "tinynet_e",
    "fbnetv3_b",
)
SIZES = ((64, 64), (75, 53))
EVEN_SIZES = ((64, 64), (96, 128))  # the shortcut of timm's anti-aliased networks rounds up, the branch down
STAGES = ("layer1", "layer2", "layer3", "layer4")
REGNET_STAGES = ("s1", "s2", "s3", "s4")


def fill_model(model: torch.nn.Module, gain: float | None) -> None:
    """Overwrites every number of a model by the formula."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if tensor.ndim}
    state = {name: fill(name, shape, gain=gain) for name, shape in shapes.items()}
    counters = {name: tensor for name, tensor in model.state_dict().items() if not tensor.ndim}
    model.load_state_dict({**{name: torch.from_numpy(value) for name, value in state.items()}, **counters})


def watch(model: torch.nn.Module) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Records gates and stage features of the next call: the gate of each stage's first, middle and last block."""
    gates: dict[str, np.ndarray] = {}
    features: dict[str, np.ndarray] = {}

    def keep_gate(name: str):
        def hook(module, inputs, output):
            gates[name] = thin(output[:, :, 0, 0].numpy()).copy()

        return hook

    def keep_feature(name: str):
        def hook(module, inputs, output):
            features[name] = thin(output.numpy()).copy()

        return hook

    if hasattr(model, "blocks"):
        named = {
            f"block{part}{string.ascii_lowercase[number]}_se": block.se
            for part, blocks in enumerate(model.blocks, start=1)
            for number, block in enumerate(blocks)
            if hasattr(getattr(block, "se", None), "gate")
        }
        for name in [list(named)[number] for number in sorted({0, len(named) // 2, len(named) - 1})]:
            named[name].gate.register_forward_hook(keep_gate(name))
        model.blocks.register_forward_hook(keep_feature("stage5"))
        return gates, features
    for stage_number, stage in enumerate(STAGES if hasattr(model, STAGES[0]) else REGNET_STAGES, start=2):
        getattr(model, stage).register_forward_hook(keep_feature(f"stage{stage_number}"))
        blocks = list(getattr(model, stage).children())
        for number in sorted({0, len(blocks) // 2, len(blocks) - 1}):
            block = blocks[number]
            squeeze_excite = block.se_module if hasattr(block, "se_module") else block.se
            gate = squeeze_excite.sigmoid if hasattr(squeeze_excite, "sigmoid") else squeeze_excite.gate
            gate.register_forward_hook(keep_gate(f"stage{stage_number}_block{number + 1}_se"))
    return gates, features


def main() -> None:
    for name in sys.argv[1:] or MODELS:
        model = timm.create_model(name).eval()
        fill_model(model, NETWORK_GAINS.get(name))
        gates, features = watch(model)
        arrays = {"source": np.array(f"timm {timm.__version__}, torch {torch.__version__.partition('+')[0]}")}
        for size in EVEN_SIZES if name.startswith("seresnextaa") else SIZES:
            with torch.no_grad():
                logits = model(torch.from_numpy(images(size))).numpy()
            key = "x".join(map(str, size))
            arrays[f"{key}/logits"] = logits
            arrays.update({f"{key}/gates/{layer}": values for layer, values in gates.items()})
            arrays.update({f"{key}/features/{layer}": values for layer, values in features.items()})
            spread = np.concatenate([values.ravel() for values in gates.values()])
            print(
                f"{name:26} {key:6} logits up to {np.abs(logits).max():.3f}, apart {np.ptp(logits, axis=0).max():.3f};"
                f" gates {np.percentile(spread, 5):.3f}..{np.percentile(spread, 95):.3f};"
                f" features up to {np.abs(list(features.values())[-1]).max():.3f}"
            )
        np.savez_compressed(HERE / f"timm_{name}.npz", **arrays)


if __name__ == "__main__":
    main()
