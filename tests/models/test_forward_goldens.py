"""Each network, with weights by formula, computes what another implementation computes with the same weights.

The goldens are written by tests/goldens/regenerate_timm.py and regenerate_caffe.py; a failure
here means that the network differs from its original, not that the golden is old.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import pytest
from cases import ALL, ONLY_NUMBERS_DIFFER
from formula import NETWORK_GAINS, fill, images, thin

from se_keras.layers import SqueezeExcite
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.weights.class_order import sorted_from_devkit
from se_keras.weights.convert import assign, convert, expected_tensors

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"

# Golden: (network, lineage, family). A network equal in two lineages has a golden of each.
CASES = {
    "caffe_se_bn_inception": ("se_bn_inception", None, "caffe_bn_inception"),
    "caffe_se_resnet50": ("se_resnet50", None, "caffe_resnet"),
    "timm_legacy_seresnet18": ("se_resnet18", "legacy", "timm_legacy"),
    "timm_legacy_seresnet34": ("se_resnet34", "legacy", "timm_legacy"),
    "timm_legacy_seresnet50": ("se_resnet50", None, "timm_legacy"),
    "timm_legacy_seresnet101": ("se_resnet101", None, "timm_legacy"),
    "timm_legacy_seresnet152": ("se_resnet152", None, "timm_legacy"),
    "timm_legacy_seresnext26_32x4d": ("se_resnext26", None, "timm_legacy"),
    "timm_legacy_seresnext50_32x4d": ("se_resnext50", None, "timm_legacy"),
    "timm_legacy_seresnext101_32x4d": ("se_resnext101", None, "timm_legacy"),
    "timm_legacy_senet154": ("senet154", None, "timm_legacy"),
    "timm_seresnet18": ("se_resnet18", "timm", "timm"),
    "timm_seresnet34": ("se_resnet34", "timm", "timm"),
    "timm_seresnet50": ("se_resnet50", "timm", "timm"),
    "timm_seresnet101": ("se_resnet101", "timm", "timm"),
    "timm_seresnet152": ("se_resnet152", "timm", "timm"),
    "timm_seresnet152d": ("se_resnet152d", None, "timm_d"),
    "timm_seresnext26d_32x4d": ("se_resnext26d", None, "timm_d"),
    "timm_seresnext26t_32x4d": ("se_resnext26t", None, "timm_d"),
    "timm_seresnext50_32x4d": ("se_resnext50", "timm", "timm"),
    "timm_seresnext101_32x4d": ("se_resnext101", "timm", "timm"),
    "timm_seresnext101_64x4d": ("se_resnext101_64x4d", "timm", "timm"),
    "timm_seresnext101_32x8d": ("se_resnext101_32x8d", None, "timm"),
    "timm_seresnext101d_32x8d": ("se_resnext101d_32x8d", None, "timm_d"),
    "timm_senet154": ("senet154", "timm", "timm"),
    "timm_seresnextaa101d_32x8d": ("seresnextaa101d_32x8d", None, "timm_d"),
    "timm_resnetrs50": ("resnetrs50", None, "timm_d"),
    "timm_regnety_004": ("regnety_004", None, "timm_regnet"),
    "timm_regnety_008_tv": ("regnety_008_tv", None, "timm_regnet"),
    "timm_regnety_032": ("regnety_032", None, "timm_regnet"),
    "timm_mobilenetv3_small_100": ("mobilenetv3_small_100", None, "timm_mobile"),
    "timm_mobilenetv3_large_100": ("mobilenetv3_large_100", None, "timm_mobile"),
    "timm_tf_mobilenetv3_large_100": ("tf_mobilenetv3_large_100", None, "timm_mobile"),
    "timm_efficientnet_b0": ("efficientnet_b0", None, "timm_mobile"),
    "timm_tf_efficientnet_b0": ("tf_efficientnet_b0", None, "timm_mobile"),
    "timm_efficientnetv2_rw_t": ("efficientnetv2_rw_t", None, "timm_mobile"),
    "timm_tf_efficientnetv2_b0": ("tf_efficientnetv2_b0", None, "timm_mobile"),
    "timm_semnasnet_100": ("semnasnet_100", None, "timm_mobile"),
    "timm_lcnet_050": ("lcnet_050", None, "timm_mobile"),
    "timm_tinynet_e": ("tinynet_e", None, "timm_mobile"),
    "timm_fbnetv3_b": ("fbnetv3_b", None, "timm_mobile"),
}
QUICK = ("timm_legacy_seresnet18", "timm_legacy_seresnet50", "timm_seresnet18", "timm_mobilenetv3_small_100")
# What other backends compute in every run besides the quick ones; `make test-all` takes all.
ON_ALL_BACKENDS = (
    "caffe_se_bn_inception",
    "timm_legacy_seresnext50_32x4d",
    "timm_regnety_008_tv",
    "timm_mobilenetv3_small_100",
    "timm_tf_efficientnet_b0",
)
LIKE_OTHERS = ("timm_senet154",)  # as deep as timm_legacy_senet154, in the form of timm_seresnext50_32x4d
TESTED = [
    name
    for name, (network, *_) in CASES.items()
    if ALL or (network not in ONLY_NUMBERS_DIFFER and name not in LIKE_OTHERS)
]
LEFT_OUT = [] if ALL else [name for name in TESTED if name not in (*QUICK, *ON_ALL_BACKENDS)]

# Sums in another order: 1e-6 in 18 layers, 1e-5 in 154; a wrong padding or gate shows at 1e-2.
TOLERANCE = 1e-4


def build(golden: str, *, lineage: str | None = "of the golden") -> keras.Model:
    """The network of a golden, logits out, filled through a synthetic checkpoint."""
    identifier, own_lineage, family = CASES[golden]
    options = Options(include_preprocessing=False, classifier_activation=None, input_shape=(None, None, 3))
    lineage = own_lineage if lineage == "of the golden" else lineage
    model = assemble(identifier, NETWORKS[identifier], options, lineage=lineage)
    shapes = expected_tensors(model, family)
    gain = NETWORK_GAINS.get(identifier)
    assign(model, convert({name: fill(name, shape, gain=gain) for name, shape in shapes.items()}, model, family))
    return model


def watched(model: keras.Model, layers: list[str]) -> keras.Model:
    """The same network with more outputs: what SE layers receive, and what other layers compute."""
    outputs = {"logits": model.output}
    for name in layers:
        layer = model.get_layer(name)
        outputs[name] = layer.input if isinstance(layer, SqueezeExcite) else layer.output
    return keras.Model(model.input, outputs)


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, as a fraction of the largest value; infinite for another shape."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def measure(golden: str, **options: str | None) -> dict[str, float]:
    """`distance` of each array of a golden, by its name."""
    with np.load(GOLDENS / f"{golden}.npz") as stored:
        arrays = {name: stored[name] for name in stored.files if name != "source"}
    is_caffe = golden.startswith("caffe")  # BGR in, classes in the order of the devkit out
    model = build(golden, **options)
    layers = sorted({name.split("/")[-1] for name in arrays} - {"logits"})
    network = watched(model, layers)
    # Compiled as a whole on JAX, which would compile each operation otherwise; elsewhere two batches do not pay for it.
    on_jax = keras.backend.backend() == "jax"
    network.compile(jit_compile=on_jax, run_eagerly=not on_jax)
    distances = {}
    for name, theirs in arrays.items():
        key, kind, *layer = name.split("/")
        batch = images(tuple(map(int, key.split("x"))), theirs.shape[0])
        if name.endswith("/logits"):
            batch = batch[:, ::-1] if is_caffe else batch
            theirs = theirs[:, sorted_from_devkit()] if is_caffe else theirs
            outputs = network.predict_on_batch(batch.transpose(0, 2, 3, 1))
        ours = outputs[layer[0] if layer else kind]
        if kind == "gates":
            gates = model.get_layer(layer[0]).gates(ours)
            ours = thin(keras.ops.convert_to_numpy(gates)[:, 0, 0, :])
        elif kind == "features":
            ours = thin(ours.transpose(0, 3, 1, 2))
        distances[name] = distance(ours, theirs)
    return distances


@pytest.mark.parametrize(
    "golden", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TESTED]
)
def test_network_equals_its_original(golden: str) -> None:
    distances = measure(golden)
    assert {name: value for name, value in distances.items() if not value < TOLERANCE} == {}


@pytest.mark.parametrize(
    ("golden", "lineage"),
    [
        ("timm_legacy_seresnet18", None),  # without the ReLU in front of the SE block
        # with the step in the 3x3, and a centered pooling
        pytest.param("timm_legacy_seresnet50", "timm", marks=pytest.mark.slow),
        # with the pooling of Caffe: nothing else differs
        pytest.param("timm_seresnext50_32x4d", None, marks=pytest.mark.slow),
    ],
)
def test_wrong_lineage_is_visible(golden: str, lineage: str | None) -> None:
    """Such checkpoints fit by name and shape: only the numbers tell."""
    assert measure(golden, lineage=lineage)["64x64/logits"] > 100 * TOLERANCE


ON_ANOTHER_BACKEND = f"""
    import contextlib, sys, pytest, warm_python
    warm_python.draw_with_numpy()
    with contextlib.redirect_stdout(sys.stderr):
        options = ["-x", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", {{selection!r}}]
        sys.exit(pytest.main([{__file__!r}, *options]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=pytest.mark.torch)])
def test_other_backends_compute_the_same(backend: str, run_warm: Callable[..., str]) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    selection = " and ".join(["equals_its_original", *(f"not {name}]" for name in LEFT_OUT)])
    run_warm(ON_ANOTHER_BACKEND.format(selection=selection), backend)
