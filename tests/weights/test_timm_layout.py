"""Networks in timm's layout, from a folder and from the hub: structure, classes, names, and preprocessing."""

from __future__ import annotations

import hashlib
import json

import keras
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import synthetic
from formula import fill
from small_networks import answers

import se_keras
import se_keras_cli
from se_keras.errors import DownloadError, WeightsMismatchError
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.preprocessing import preprocessing_of, stored_preprocessing
from se_keras.weights.convert import assign, convert
from se_keras.weights.timm_layout import read_layout
from se_keras.weights.timm_names import ARCHITECTURES

NAMES = ("bellflower", "daisy", "iris", "rose", "tulip")
CONFIG = {
    "architecture": "lcnet_050",
    "num_classes": 5,
    "num_features": 1280,
    "global_pool": "avg",
    "label_names": list(NAMES),
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "crop_pct": 0.9,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.5, 0.6, 0.7],
        "num_classes": 5,
        "first_conv": "conv_stem",
        "classifier": "classifier",
    },
}


@pytest.fixture(scope="session")
def tensors():
    values = synthetic("lcnet_050", "timm_mobile")
    return {**values, "classifier.weight": fill("w", (5, 1280)), "classifier.bias": fill("b", (5,))}


@pytest.fixture
def folder(tmp_path, tensors):
    """A function that writes the layout with a changed configuration or changed tensors, and returns its name."""

    def write(tensors_changed=None, **changes):
        config = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(config))
        safetensors.numpy.save_file(tensors_changed or tensors, tmp_path / "model.safetensors")
        return f"local-dir:{tmp_path}"

    return write


def expected(tensors, **options):
    model = assemble("lcnet_050", NETWORKS["lcnet_050"], Options(classes=5, input_shape=(64, 64, 3), **options))
    assign(model, convert(tensors, model, "timm_mobile"))
    return model


IMAGES = (np.arange(2 * 64 * 64 * 3) * 7919 % 256).reshape(2, 64, 64, 3).astype("float32")


def test_folder_brings_its_classes_and_preprocessing(folder, tensors):
    model = se_keras.create_model(folder())
    assert (model.input_shape, model.output_shape) == ((None, 64, 64, 3), (None, 5))
    stated = preprocessing_of(model)
    assert (stated.crop, stated.interpolation, stated.mean, stated.std) == (
        0.9,
        "bicubic",
        (0.5, 0.4, 0.3),
        (0.5, 0.6, 0.7),
    )
    plain = expected(tensors, include_preprocessing=False)
    np.testing.assert_allclose(answers(model, IMAGES), answers(plain, stated.normalize(IMAGES)), rtol=1e-4)


def test_folder_works_as_weights_of_its_network(folder):
    model = se_keras.LCNet050(weights=folder(), classes=3)
    assert model.output_shape == (None, 3)
    assert se_keras.get_preprocessing(folder()) == stored_preprocessing(model)
    with pytest.raises(ValueError, match=r"is a 'lcnet_050', not a 'lcnet_075'\. se_keras.create_model"):
        se_keras.LCNet075(weights=folder())


def test_old_configuration_of_one_level_is_read(folder):
    details = CONFIG["pretrained_cfg"]
    record = read_layout(folder(pretrained_cfg=None, label_names=None, labels=list(NAMES), **details))
    assert (record.classes, record.class_names, record.preprocessing.crop) == (5, NAMES, 0.9)


def test_missing_entries_are_timms_defaults(folder):
    preprocessing = read_layout(folder(pretrained_cfg={})).preprocessing
    assert preprocessing == se_keras.Preprocessing(interpolation="bicubic")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"label_names": {str(index): name for index, name in enumerate(NAMES)}}, NAMES),
        ({"label_names": list("abcde"), "label_descriptions": dict(zip("abcde", NAMES, strict=True))}, NAMES),
        ({"label_names": list("abcde"), "label_descriptions": dict.fromkeys("abcde", "flower")}, tuple("abcde")),
        ({"label_names": None}, ()),
    ],
    ids=["numbered", "described", "described alike", "none"],
)
def test_label_names_become_class_names(changes, names, folder):
    assert read_layout(folder(**changes)).class_names == names


def test_one_channel_is_kept(folder, tensors):
    gray = {**tensors, "conv_stem.weight": tensors["conv_stem.weight"].sum(1, keepdims=True)}
    details = {**CONFIG["pretrained_cfg"], "input_size": [1, 64, 64]}
    model = se_keras.create_model(folder(gray, pretrained_cfg=details, model_args={"in_chans": 1}))
    assert model.input_shape == (None, 64, 64, 1)
    assert preprocessing_of(model).mean == (pytest.approx(0.4),)


def test_network_without_a_classifier_is_taken_without(folder, tensors):
    body = {name: value for name, value in tensors.items() if "classifier" not in name and "conv_head" not in name}
    name = folder(body, num_classes=0, label_names=None)
    with pytest.raises(ValueError, match=r"has no classifier\. Pass include_top=False"):
        se_keras.create_model(name)
    assert se_keras.create_model(name, include_top=False, pooling="avg").output_shape == (None, 256)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "convnext_tiny"}, r"Unknown architecture of 'local-dir:.*' 'convnext_tiny'.* others"),
        ({"architecture": "lcnet_500"}, r"Did you mean .*'lcnet_050'"),
        ({"label_names": ["a", "b"]}, r"one name for each of the 5 classes; received 2 \(the label names of"),
        ({"label_names": {"a": 0}}, "Label names must be a list, or have output numbers as keys"),
        ({"num_classes": 7, "label_names": None}, "states 7 classes, but its weights have 5"),
        ({"model_args": {"se_layer": "eca"}}, "was built with se_layer='eca', which changes timm's network"),
        ({"model_args": {"global_pool": "max"}}, "was built with global_pool='max'"),
        ({"pretrained_cfg": {"interpolation": "lanczos"}}, "preprocessing of 'local-dir:.* 'lanczos'"),
        ({"pretrained_cfg": {"input_size": [64, 64]}}, "does not support the preprocessing of 'local-dir:"),
        ({"architecture": None}, r"The config\.json of .* must state `architecture`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_configuration_is_refused(changes, message, folder):
    with pytest.raises(ValueError, match=message):
        read_layout(folder(**changes))


def test_other_crop_modes_are_said(folder):
    with pytest.warns(UserWarning, match="crops images in the mode 'squash'"):
        read_layout(folder(pretrained_cfg={**CONFIG["pretrained_cfg"], "crop_mode": "squash"}))


def test_extra_and_missing_tensors_are_both_listed(folder, tensors):
    changed = {name: value for name, value in tensors.items() if name != "bn1.weight"} | {"extra": np.zeros(3)}
    with pytest.raises(WeightsMismatchError, match=r"(?s)- bn1\.weight.*\+ extra"):
        se_keras.create_model(folder(changed))


def test_missing_folder_and_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder at 'gone'"):
        se_keras.create_model("local-dir:gone")
    with pytest.raises(FileNotFoundError, match=r"has config\.json; .* has none"):
        se_keras.create_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"is not JSON"):
        se_keras.create_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FileNotFoundError, match=r"has model\.safetensors or pytorch_model\.bin; .* has none"):
        se_keras.create_model(f"local-dir:{tmp_path}")


def on_hub(hub, tensors, **config):
    hub.files["someone/plants/config.json"] = json.dumps({**CONFIG, **config}).encode()
    hub.files["someone/plants/model.safetensors"] = safetensors.numpy.save(tensors)


def test_repository_is_downloaded_once(hub, tensors):
    on_hub(hub, tensors)
    first = se_keras.create_model("hf-hub:someone/plants")
    assert len(hub.downloads()) == 2
    hub.files.clear()
    second = se_keras.create_model("hf-hub:someone/plants")
    np.testing.assert_array_equal(answers(first, IMAGES), answers(second, IMAGES))
    assert len(hub.downloads()) == 2


def test_revision_is_asked_for(hub, tensors):
    on_hub(hub, tensors)
    se_keras.create_model("hf-hub:someone/plants@v2")
    assert {path.split("/")[4] for _, path, _ in hub.requests if "/resolve/" in path} == {"v2"}


def test_small_files_are_verified_by_gits_hash(hub, tensors):
    on_hub(hub, tensors)
    content = hub.files["someone/plants/config.json"]
    hub.etags["someone/plants/config.json"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    read_layout("hf-hub:someone/plants")
    hub.files["someone/else/config.json"] = content
    hub.etags["someone/else/config.json"] = "0" * 40
    with pytest.raises(DownloadError, match="the content is not the published one: git"):
        read_layout("hf-hub:someone/else")


def test_unknown_repository_tells_the_hubs_answer(hub):
    with pytest.raises(
        DownloadError, match=r"'some/one' could not be read.*\n.*config\.json: \w*EntryNotFoundError: 404"
    ):
        se_keras.create_model("hf-hub:some/one")
    with pytest.raises(ValueError, match=r"A repository is named hf-hub:OWNER/REPO"):
        se_keras.create_model("hf-hub:plants")


def test_pickled_weights_are_read_by_the_restricted_reader(hub, tensors):
    on_hub(hub, tensors)
    del hub.files["someone/plants/model.safetensors"]
    hub.files["someone/plants/pytorch_model.bin"] = b"\x80\x02}q\x00."
    with pytest.raises(ValueError, match=r"pytorch_model\.bin' contains more than tensors"):
        se_keras.create_model("hf-hub:someone/plants")


def test_names_of_architectures_are_those_of_the_goldens():
    from models.test_forward_goldens import CASES

    ours = {
        name.removeprefix("timm_"): (network, family, lineage)
        for name, (network, lineage, family) in CASES.items()
        if name.startswith("timm_")
    }
    for name, (network, family, lineage) in ours.items():
        architecture = ARCHITECTURES[name]
        specs = {None: NETWORKS[network].spec, **NETWORKS[network].lineages}
        assert (architecture.model, architecture.family) == (network, family), name
        assert specs.get(architecture.lineage, specs[None]) == specs[lineage], name


def run(capsys, *arguments):
    code = se_keras_cli.main([str(argument) for argument in arguments])
    return code, capsys.readouterr().out


def test_info_describes_a_checkpoint_under_timms_name(capsys):
    code, out = run(capsys, "info", "legacy_senet154.in1k", "--json")
    assert (code, json.loads(out)["tag"]) == (0, "legacy_in1k")


@pytest.mark.slow
def test_commands_take_a_network_in_timms_layout(capsys, folder, tmp_path):
    keras.utils.save_img(tmp_path / "photo.png", IMAGES[0])
    code, out = run(capsys, "predict", tmp_path / "photo.png", "--model", folder(), "--json")
    first = json.loads(out)[0]["predictions"]
    assert (code, {row["label"] for row in first}) == (0, set(NAMES))
    assert run(capsys, "convert", folder(), "--to", tmp_path / "plants.keras")[0] == 0
    code, out = run(capsys, "predict", tmp_path / "photo.png", "--model", tmp_path / "plants.keras", "--json")
    assert (code, json.loads(out)[0]["predictions"]) == (0, first)
