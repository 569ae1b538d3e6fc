"""Networks by name: listed, created, and refused with the closest names."""

from __future__ import annotations

import inspect
import textwrap

import numpy as np
import pytest
from cases import NEWER

import se_keras
from se_keras import create_model, get_preprocessing, list_models, list_weights
from se_keras.catalog import known_networks
from se_keras.models import registry
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.weights.published import DEFAULT_TAGS, RECORDS
from se_keras.weights.structure import fingerprint_of
from se_keras.weights.timm_names import record_named

OF_THE_PAPER = [
    "se_bn_inception",
    "se_inception_resnet_v2",
    "se_inception_v3",
    "se_mobilenet",
    "se_preresnet110",
    "se_preresnet164",
    "se_resnet101",
    "se_resnet110",
    "se_resnet152",
    "se_resnet152d",
    "se_resnet18",
    "se_resnet20",
    "se_resnet32",
    "se_resnet34",
    "se_resnet44",
    "se_resnet50",
    "se_resnet56",
    "se_resnext101",
    "se_resnext101_32x8d",
    "se_resnext101_64x4d",
    "se_resnext101d_32x8d",
    "se_resnext26",
    "se_resnext26d",
    "se_resnext26t",
    "se_resnext50",
    "se_shufflenet",
    "se_vgg16",
    "se_wide_resnet16_8",
    "senet154",
]


NAMES = sorted((*OF_THE_PAPER, *NEWER))


def test_list_models_names_every_network_once_and_sorted():
    assert list_models() == NAMES


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*inception*", ["se_bn_inception", "se_inception_resnet_v2", "se_inception_v3"]),
        ("se_resnext101*4d", ["se_resnext101_64x4d"]),
        ("se_resnet50", ["se_resnet50"]),
        ("nothing*", []),
    ],
)
def test_list_models_filters(pattern, names):
    assert list_models(pattern) == names


def test_list_models_within_limits_is_smallest_first():
    facts = known_networks()
    found = list_models(has_weights=True, max_parameters=6e6)
    assert found == sorted(found, key=lambda name: facts[name].parameters)
    expected = {record.model for record in RECORDS.values() if facts[record.model].parameters <= 6e6}
    assert set(found) == expected
    assert found[0] == "se_resnet20"
    assert list_models(max_macs=np.float32(30e6)) == ["mobilenetv3_small_050", "tinynet_e"]
    assert list_models("se_res*", has_weights=True, sort="size")[0] == "se_resnet20"


def test_list_models_by_accuracy_and_license():
    best = list_models(min_accuracy=86.5, sort="accuracy")
    assert best == [
        "tf_efficientnet_l2",
        "regnety_1280",
        "seresnextaa201d_32x8d",
        "tf_efficientnet_b7",
        "regnety_320",
        "seresnextaa101d_32x8d",
    ]
    assert list_models(min_accuracy=86.5, license="commercial") == [
        "tf_efficientnet_b7",
        "seresnextaa101d_32x8d",
        "seresnextaa201d_32x8d",
        "tf_efficientnet_l2",
    ]
    assert list_models(license="seer-license") == ["regnety_320", "regnety_640", "regnety_1280"]
    assert "se_resnet20" not in list_models(min_accuracy=1), "its accuracy is not on ImageNet"
    assert list_models("se_resnet*", sort="accuracy")[0] == "se_resnet152d"


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_parameters": 0}, r"`max_parameters` must be a number above 0; received max_parameters=0\."),
        ({"max_parameters": "6M"}, r"received max_parameters='6M'"),
        ({"max_macs": float("nan")}, r"`max_macs` must be a number above 0; received max_macs=nan"),
        ({"max_macs": True}, r"received max_macs=True"),
        ({"min_accuracy": 0.75}, r"`min_accuracy` must be a percentage from 1 to 100; received min_accuracy=0\.75"),
        ({"license": "apache"}, r"Unknown license 'apache'\. Did you mean 'apache-2\.0'"),
        ({"sort": "parameter"}, r"Unknown sort 'parameter'\. Did you mean 'parameters'"),
    ],
)
def test_list_models_refuses_limits_that_are_none(limit, message):
    with pytest.raises(ValueError, match=message):
        list_models(**limit)


def test_two_tables_cannot_name_the_same_network():
    table = {"se_resnet50": NETWORKS["se_resnet50"]}
    with pytest.raises(ValueError, match=r"Two tables name the same network: \['se_resnet50'\]"):
        registry._union(table, table)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("seresnet51", r"Unknown model 'seresnet51'\. Did you mean .*'seresnet50'"),
        ("se_resnet51", r"Unknown model 'se_resnet51'\. Did you mean .*'se_resnet50'.*\?$"),
        ("SEResNet50", r"Unknown model 'SEResNet50'\. Did you mean .*'se_resnet50'.*\?$"),
        ("resnet", r"Unknown model 'resnet'\."),
        ("", r"Unknown model ''\. Options: .*'se_resnet50', .*, and \d+ others\.$"),
    ],
)
@pytest.mark.parametrize("function", [create_model, get_preprocessing, list_weights])
def test_unknown_name_is_refused_with_the_closest(function, name, message):
    with pytest.raises(ValueError, match=message):
        function(name)


def test_a_tag_in_the_name_stands_for_weights():
    with pytest.raises(ValueError, match=r"No weights .* 'se_resnet32'; received weights='nothing'\. Pass weights"):
        create_model("se_resnet32.nothing")
    with pytest.raises(ValueError, match=r"'se_resnet20\.nothing' already names weights; also received weights="):
        create_model("se_resnet20.nothing", weights="other")


def test_create_model_has_random_weights_by_default():
    first, second = create_model("se_resnet20"), create_model("se_resnet20")
    assert (first.get_weights()[0] != second.get_weights()[0]).any()


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_preprocessing_fits_the_network(name):
    record, network = get_preprocessing(name), NETWORKS[name]
    inception = ("se_inception_v3", "se_inception_resnet_v2")
    assert record.size == (32 if network.classes == 10 else 299 if name in inception else 224)
    assert record is network.preprocessing
    assert min(record.height_width) >= network.min_size
    if network.classes == 10:
        assert record.crop == 1
    elif name in inception:
        assert record.crop == pytest.approx(299 / 352)
    else:
        assert record.crop == pytest.approx(224 / 256)


@pytest.mark.parametrize("name", NAMES)
def test_every_network_tells_its_source(name):
    about = NETWORKS[name].about
    assert "arXiv" in about or "keras.applications" in about
    assert about.endswith(".")


@pytest.mark.parametrize("name", ["se_resnet50.imagenet", "se_resnet50.a3_in1k", "se_resnet50.caffe_in1k"])
def test_preprocessing_of_a_checkpoint(name):
    record = get_preprocessing(name)
    assert (record.size, record.std[0]) == {
        "imagenet": (224, 0.229),
        "a3_in1k": (160, 0.229),
        "caffe_in1k": (224, 1 / 255),
    }[name.partition(".")[2]]


def test_preprocessing_of_a_model_and_of_an_unknown_checkpoint():
    assert get_preprocessing(create_model("se_resnet20", input_shape=(48, 40, 3))).height_width == (48, 40)
    with pytest.raises(ValueError, match=r"Unknown weights of 'se_resnet50' 'caffe'\. Did you mean"):
        get_preprocessing("se_resnet50.caffe")


def test_default_weights_are_published_ones():
    exported = [getattr(se_keras, name) for name in se_keras.__all__ if name[0].isupper()]
    builders = [value for value in exported if inspect.isfunction(value)]
    assert len(builders) == len(NAMES)
    for builder in builders:
        parameters = inspect.signature(builder).parameters
        identifier, default = parameters["name"].default, parameters["weights"].default
        assert default == ("imagenet" if identifier in DEFAULT_TAGS else None)
        if default is not None:
            assert get_preprocessing(f"{identifier}.{default}")
    assert se_keras.SEShuffleNet(input_shape=(32, 32, 3)).count_params() > 0


def test_signatures_are_short_enough_to_read():
    signature = str(inspect.signature(se_keras.SEResNet20))
    assert "se: se_keras.blocks.excitation.SEConfig | None = SEConfig()" in signature
    assert "weights: str | os.PathLike | None = None" in signature


def test_example_of_the_builders_is_true():
    code = textwrap.dedent(se_keras.SEResNet20.__doc__.split("Example:\n")[1])
    *lines, (last, comment) = [line.split("  # ") for line in code.strip().splitlines()]
    scope = {"SEResNet20": se_keras.SEResNet20}
    exec("\n".join(line[0] for line in lines), scope)
    assert repr(eval(last, scope)) == comment


def test_builders_carry_the_documentation_of_their_network():
    text = se_keras.SEInceptionV3.__doc__
    assert text.startswith("Builds SE-Inception-v3.\n")
    assert "Default: 299x299 RGB" in " ".join(text.split())
    assert "At least 75 pixels" in text
    assert "positions: standard." in text
    assert "Default: 0.2." in text
    assert "Stages\n        with SE blocks: 2, 3, 4;" in se_keras.SEResNet20.__doc__
    assert "checkpoint (cifar10, cifar10_plain)," in se_keras.SEResNet20.__doc__
    assert (
        "ra2_in1k, a1_in1k, a2_in1k, a3_in1k; 'imagenet' is ra2_in1k, 'paper' is legacy_in1k)"
        in se_keras.SEResNet50.__doc__
    )
    assert "(none exists)" in text
    for word in (".caffemodel", ".pth", ".safetensors", "DownloadError:", "WeightsMismatchError:", "Example:"):
        assert word in text


@pytest.mark.parametrize(
    ("name", "weights", "model", "tag", "lineage"),
    [
        ("seresnet50.ra2_in1k", None, "se_resnet50", "ra2_in1k", "timm"),
        ("seresnet50", "a1_in1k", "se_resnet50", "a1_in1k", "timm"),
        ("seresnet50", "imagenet", "se_resnet50", "ra2_in1k", "timm"),
        ("legacy_seresnet50.in1k", None, "se_resnet50", "legacy_in1k", None),
        ("legacy_seresnet50", "imagenet", "se_resnet50", "legacy_in1k", None),
        ("legacy_senet154", None, "senet154", None, None),
        ("seresnet18", None, "se_resnet18", None, "timm"),
        ("seresnet18", "runs/a.safetensors", "se_resnet18", "runs/a.safetensors", "timm"),
        ("senet154.gluon_in1k", None, "senet154", "gluon_in1k", None),
        ("regnety_032", "imagenet", "regnety_032", "imagenet", None),
    ],
)
def test_timms_names_stand_for_our_networks(name, weights, model, tag, lineage):
    assert registry.resolve(name, weights) == registry.Named(model, tag, lineage)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("seresnet50.ra3_in1k", r"Unknown weights of 'seresnet50' 'ra3_in1k'\. Did you mean .*'ra2_in1k'"),
        ("seresnet34.imagenet", "No weights have been published for timm's 'seresnet34'"),
    ],
)
def test_unknown_tag_of_timms_names_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        create_model(name)


def test_timms_names_are_built_in_timms_structure():
    model, options = create_model("seresnet18", input_shape=(64, 64, 3)), Options(input_shape=(64, 64, 3))
    timms, own = (assemble("se_resnet18", NETWORKS["se_resnet18"], options, lineage=one) for one in ("timm", None))
    assert fingerprint_of(model) == fingerprint_of(timms) != fingerprint_of(own)
    assert list_weights("seresnet18") == []
    assert list_weights("legacy_seresnet18") == ["se_resnet18.legacy_in1k"]
    assert get_preprocessing("seresnet50.a3_in1k") == get_preprocessing("se_resnet50.a3_in1k")


def test_every_record_of_timm_is_found_by_its_name():
    for record in RECORDS.values():
        if record.timm:
            named = registry.resolve(record.timm)
            assert (named.model, named.weights) == (record.model, record.tag)
            assert record_named(record.timm) is record
