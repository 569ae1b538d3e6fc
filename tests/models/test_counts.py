"""Parameters to the unit and multiply-adds to a thousandth, against numbers worked out from the authors' networks.

The numbers are literal: they were computed from the published network descriptions, not by this package. Those of the
seven released networks also agree with the sizes of the released files. "trainable" leaves out the moving statistics.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
from cases import ALL, ONLY_NUMBERS_DIFFER

from se_keras import SEConfig

WITHOUT_BIAS = SEConfig(use_bias=False)


def rows(table, quick):
    """The rows of a table as parameters; a row is slow unless `quick` has its first element."""
    # Rows begin with the name of a network, or with a label and the name.
    table = [row for row in table if ALL or not {str(cell) for cell in row[:2]} & {*ONLY_NUMBERS_DIFFER}]
    marks = [() if row[0] in quick else (pytest.mark.slow,) for row in table]
    return [pytest.param(*row, marks=mark, id=str(row[0])) for row, mark in zip(table, marks, strict=True)]


def count(tree, condition):
    return sum(math.prod(shape) for path, shape in tree.items() if condition(path))


# The seven networks that the authors released.
# trainable, moving statistics, convolutions, norm, classifier, SE, of which bias, without SE
RELEASED = [
    ("se_bn_inception", 11_931_622, 20_032, 10_240_192, 20_032, 1_025_000, 646_398, 7_038, 11_285_224),
    ("se_resnet50", 28_088_024, 53_120, 23_454_912, 53_120, 2_049_000, 2_530_992, 16_048, 25_557_032),
    ("se_resnet101", 49_326_872, 105_344, 42_394_816, 105_344, 2_049_000, 4_777_712, 34_544, 44_549_160),
    ("se_resnet152", 66_821_848, 151_424, 57_992_384, 151_424, 2_049_000, 6_629_040, 50_864, 60_192_808),
    ("se_resnext50", 27_559_896, 68_224, 22_911_680, 68_224, 2_049_000, 2_530_992, 16_048, 25_028_904),
    ("se_resnext101", 48_955_416, 137_856, 41_990_848, 137_856, 2_049_000, 4_777_712, 34_544, 44_177_704),
    ("senet154", 115_088_984, 247_552, 106_163_392, 247_552, 2_049_000, 6_629_040, 50_864, 108_459_944),
]


@pytest.mark.parametrize(
    ("name", "trainable", "statistics", "conv", "norm", "classifier", "se", "se_bias", "plain"),
    rows(RELEASED, quick={"se_resnet50"}),
)
def test_parameters_of_a_released_network(
    name, trainable, statistics, conv, norm, classifier, se, se_bias, plain, built
):
    network = built(name)
    tree = network.tree
    assert network.trainable == trainable
    assert network.non_trainable == statistics
    assert count(tree, lambda path: path.endswith("/kernel") and not path.startswith("logits")) == conv
    assert count(tree, lambda path: path.endswith(("/gamma", "/beta"))) == norm
    assert count(tree, lambda path: path.startswith("logits/")) == classifier
    assert count(tree, lambda path: "_se/" in path) == se
    assert count(tree, lambda path: path.endswith(("/reduce_bias", "/expand_bias"))) == se_bias
    assert built(name, se=None).trainable == plain
    assert built(name, se=WITHOUT_BIAS).trainable == trainable - se_bias
    assert network.info.total.trainable == trainable
    assert network.info.total.parameters == trainable + statistics


# Multiply-adds at 224x224 in units of 1e9: convolutions, classifier, SE, sum, sum without SE.
RELEASED_GMACS = [
    ("se_bn_inception", 2.0316, 0.0010, 0.00064, 2.0332, 2.0326),
    ("se_resnet50", 3.8559, 0.0020, 0.00251, 3.8605, 3.8580),
    ("se_resnet101", 7.5681, 0.0020, 0.00474, 7.5749, 7.5702),
    ("se_resnet152", 11.2804, 0.0020, 0.00658, 11.2890, 11.2824),
    ("se_resnext50", 4.2284, 0.0020, 0.00251, 4.2330, 4.2305),
    ("se_resnext101", 7.9679, 0.0020, 0.00474, 7.9747, 7.9700),
    ("senet154", 20.6797, 0.0020, 0.00658, 20.6884, 20.6818),
]


@pytest.mark.parametrize(
    ("name", "conv", "classifier", "se", "total", "plain"),
    rows(RELEASED_GMACS, quick={"se_bn_inception", "se_resnet50"}),
)
def test_multiply_adds_of_a_released_network(name, conv, classifier, se, total, plain, built):
    info = built(name).info
    assert info.input_shape == (224, 224, 3)
    # Half a unit of the last printed digit, which is well below a thousandth.
    assert info.total.conv_macs / 1e9 == pytest.approx(conv, abs=5.1e-5)
    assert info.total.dense_macs / 1e9 == pytest.approx(classifier, abs=5.1e-5)
    assert info.total.se_macs / 1e9 == pytest.approx(se, abs=0.51e-5)
    assert info.total.macs / 1e9 == pytest.approx(total, abs=5.1e-5)
    assert built(name, se=None).info.total.macs / 1e9 == pytest.approx(plain, abs=5.1e-5)


# Parameters, and multiply-adds in units of 1e6, of the stem and of stages 2 to 5 at 224x224.
STAGES = [
    (
        "se_resnet50",
        ((9_536, 118.0), (241_200, 668.0), (1_352_832, 950.7), (7_891_328, 1388.1), (16_544_128, 733.7)),
    ),
    (
        "se_resnet101",
        ((9_536, 118.0), (241_200, 668.0), (1_352_832, 950.7), (29_130_176, 5102.5), (16_544_128, 733.7)),
    ),
    (
        "se_resnet152",
        ((9_536, 118.0), (241_200, 668.0), (2_606_336, 1824.3), (45_371_648, 7943.0), (16_544_128, 733.7)),
    ),
    (
        "se_resnext50",
        ((9_536, 118.0), (231_216, 634.2), (1_330_304, 1085.5), (7_815_552, 1526.1), (16_124_288, 867.0)),
    ),
    (
        "se_resnext101",
        ((9_536, 118.0), (231_216, 634.2), (1_330_304, 1085.5), (29_211_072, 5267.9), (16_124_288, 867.0)),
    ),
    (
        "senet154",
        ((112_832, 1408.9), (354_864, 1019.6), (4_695_296, 3609.7), (68_677_888, 12650.7), (39_199_104, 1997.4)),
    ),
]


@pytest.mark.parametrize(("name", "stages"), rows(STAGES, quick={"se_resnet50"}))
def test_parameters_and_multiply_adds_by_stage(name, stages, built):
    info = built(name).info
    assert list(info.stages) == ["stem", "stage2", "stage3", "stage4", "stage5", "head"]
    costs = list(info.stages.values())
    assert [cost.trainable for cost in costs[:5]] == [parameters for parameters, _ in stages]
    assert [cost.macs / 1e6 for cost in costs[:5]] == pytest.approx([macs for _, macs in stages], abs=0.051)
    assert costs[5].trainable == 2_049_000


def test_stages_of_bn_inception(built):
    network = built("se_bn_inception")

    def trainable(*prefixes):
        return count(network.tree, lambda path: path.startswith(prefixes) and "moving" not in path)

    # The authors' rows 3 and 4 end with their modules of step 2, with which our stages 4 and 5 begin.
    assert trainable("stem") == 9_536
    assert trainable("stage2") == 115_200
    assert trainable("stage3", "stage4_block1_") == 928_008
    assert trainable("stage4", "stage5_block1_") - trainable("stage4_block1_") == 5_101_046
    assert trainable("stage5") - trainable("stage5_block1_") == 4_752_832
    macs = [network.info.stages[stage].macs / 1e6 for stage in ("stem", "stage2", "stage3", "stage4", "stage5")]
    assert macs[:2] == pytest.approx([118.0, 359.7], abs=0.051)
    assert sum(macs[2:]) == pytest.approx(518.1 + 816.6 + 219.9, abs=0.151)


class Row(NamedTuple):
    """One row: with SE, with SE but without its biases, without SE; multiply-adds / 1e9 and the size they are for."""

    label: str
    name: str
    lineage: str | None
    trainable: int
    without_bias: int
    plain: int
    gmacs: float
    size: int
    classes: int | None = None


OTHERS = [
    Row("resnet18", "se_resnet18", None, 11_778_592, 11_776_552, 11_689_512, 1.814, 224),
    Row("resnet18-timm", "se_resnet18", "timm", 11_779_624, 11_777_576, 11_689_512, 1.814, 224),
    Row("resnet34", "se_resnet34", None, 21_958_868, 21_954_856, 21_797_672, 3.664, 224),
    Row("resnet34-timm", "se_resnet34", "timm", 21_960_416, 21_956_392, 21_797_672, 3.664, 224),
    Row("resnet50-timm", "se_resnet50", "timm", 28_088_024, 28_071_976, 25_557_032, 4.092, 224),
    Row("resnet101-timm", "se_resnet101", "timm", 49_326_872, 49_292_328, 44_549_160, 7.806, 224),
    Row("resnet152-timm", "se_resnet152", "timm", 66_821_848, 66_770_984, 60_192_808, 11.520, 224),
    Row("resnext26", "se_resnext26", None, 16_790_280, 16_782_120, 15_389_480, 2.472, 224),
    Row("resnext101_64x4d", "se_resnext101_64x4d", None, 88_232_984, 88_198_440, 83_455_272, 15.465, 224),
    Row("vgg16", "se_vgg16", None, 138_592_560, 138_588_072, 138_361_768, 15.470, 224),
    Row("mobilenet", "se_mobilenet", None, 4_718_044, 4_711_720, 4_231_976, 0.5692, 224),
    Row("shufflenet", "se_shufflenet", None, 2_484_533, 2_476_144, 1_865_728, 0.1381, 224),
    Row("inception_v3", "se_inception_v3", None, 25_478_972, 25_468_296, 23_817_352, 5.715, 299),
    Row("inception_resnet_v2", "se_inception_resnet_v2", None, 65_062_446, 65_010_120, 55_813_192, 13.165, 299),
    Row("resnet20", "se_resnet20", None, 274_847, 274_490, 272_474, 0.0408, 32),
    Row("resnet56", "se_resnet56", None, 862_889, 861_818, 855_770, 0.1258, 32),
    Row("resnet110", "se_resnet110", None, 1_744_952, 1_742_810, 1_730_714, 0.2532, 32),
    Row("preresnet110", "se_preresnet110", None, 1_744_760, 1_742_618, 1_730_522, 0.2532, 32),
    Row("preresnet164", "se_preresnet164", None, 1_905_362, 1_896_794, 1_703_258, 0.2478, 32),
    Row("preresnet164-100", "se_preresnet164", None, 1_928_492, 1_919_924, 1_726_388, 0.2478, 32, 100),
    Row("wide16_8", "se_wide_resnet16_8", None, 11_049_290, 11_047_386, 10_961_370, 1.548, 32),
    Row("wide16_8-100", "se_wide_resnet16_8", None, 11_095_460, 11_093_556, 11_007_540, 1.548, 32, 100),
]
QUICK = {"resnet18-timm", "mobilenet", "resnet20"}


# For another number of classes, only the classifier differs.
@pytest.mark.parametrize(Row._fields, rows([row for row in OTHERS if ALL or row.classes is None], QUICK))
def test_parameters_and_multiply_adds(
    label, name, lineage, trainable, without_bias, plain, gmacs, size, classes, built
):
    options = {} if classes is None else {"classes": classes}
    network = built(name, lineage, **options)
    assert network.trainable == trainable
    assert built(name, lineage, se=WITHOUT_BIAS, **options).trainable == without_bias
    assert built(name, lineage, se=None, **options).trainable == plain
    assert network.info.input_shape == (size, size, 3)
    # A thousandth, or half a unit of the last printed digit where that is more.
    assert network.info.total.macs / 1e9 == pytest.approx(gmacs, rel=1e-3, abs=5.1e-5)


# Networks of timm only: its own table of results gives their parameters in millions.
TIMM_ONLY = [
    ("se_resnext26d", 16.81),
    ("se_resnext26t", 16.81),
    ("se_resnet152d", 66.84),
    ("se_resnext101_32x8d", 93.57),
    ("se_resnext101d_32x8d", 93.59),
]


@pytest.mark.parametrize(("name", "millions"), rows(TIMM_ONLY, quick={"se_resnext26t"}))
def test_parameters_of_a_network_of_timm(name, millions, built):
    assert built(name).trainable / 1e6 == pytest.approx(millions, abs=0.0051)


REDUCTIONS = [(2, 45_676_584), (4, 35_616_808), (8, 30_586_920), (16, 28_071_976), (32, 26_814_504)]


@pytest.mark.parametrize(("reduction", "trainable"), rows(REDUCTIONS, quick={16}))
def test_resnet50_by_reduction(reduction, trainable, built):
    assert built("se_resnet50", se=SEConfig(reduction, use_bias=False)).trainable == trainable


@pytest.mark.parametrize(
    ("stages", "trainable"),
    rows([((2,), 25_581_608), ((3,), 25_688_104), ((4,), 26_343_464)], quick={(2,)}),
)
def test_resnet50_with_se_in_one_stage(stages, trainable, built):
    assert built("se_resnet50", se=SEConfig(use_bias=False, stages=stages)).trainable == trainable


@pytest.mark.slow
def test_resnet50_without_se_in_the_last_stage(built):
    # Section 6.1: leaving out stage 5 takes most of the cost away, 9.84 % to 3.69 % more than the plain network.
    for stages, percent in (((2, 3, 4), 3.69), (None, 9.84)):
        network = built("se_resnet50", se=SEConfig(use_bias=False, stages=stages))
        assert 100 * (network.trainable / 25_557_032 - 1) == pytest.approx(percent, abs=0.005)


def test_resnet50_with_se_after_the_3x3(built):
    assert built("se_resnet50", se=SEConfig(use_bias=False, position="conv3x3")).trainable == 25_714_216


@pytest.mark.slow
@pytest.mark.parametrize("position", ["pre", "post", "identity"])
def test_resnet50_at_other_positions(position, built):
    # "post" and "identity" see the channels of the branch's output, "pre" those of the unit's input.
    widths = {2: (256, 3, 64), 3: (512, 4, 256), 4: (1024, 6, 512), 5: (2048, 3, 1024)}
    inputs = [n for out, blocks, first in widths.values() for n in [first] + [out] * (blocks - 1)]
    outputs = [out for out, blocks, _ in widths.values() for _ in range(blocks)]
    expected = sum(2 * c * (c // 16) for c in (inputs if position == "pre" else outputs))
    network = built("se_resnet50", se=SEConfig(use_bias=False, position=position))
    assert network.trainable == 25_557_032 + expected
