"""SEConfig refuses what no network can carry out, and the width of the bottleneck follows its two rules."""

from __future__ import annotations

import dataclasses

import keras
import pytest

from se_keras import SEConfig, SqueezeExcite
from se_keras.blocks.excitation import POSITIONS, excite, squeeze_width


def test_defaults_are_the_released_networks():
    assert dataclasses.asdict(SEConfig().completed()) == {
        "reduction": 16,
        "squeeze": "avg",
        "activation": "relu",
        "gate_activation": "sigmoid",
        "use_bias": True,
        "position": "standard",
        "stages": None,
        "squeeze_divisor": None,
        "gate_init": "default",
    }


def test_a_network_completes_what_a_config_does_not_state():
    own = SEConfig(reduction=4, activation="silu", gate_activation="hard_sigmoid")
    assert SEConfig().completed(own) == own
    assert SEConfig(reduction=8, squeeze="max").completed(own) == dataclasses.replace(own, reduction=8, squeeze="max")


def test_representation_shows_what_was_changed():
    assert repr(SEConfig()) == "SEConfig()"
    assert repr(SEConfig(reduction=4, stages=[3])) == "SEConfig(reduction=4, stages=(3,))"


def test_config_is_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SEConfig().reduction = 8
    assert {SEConfig(stages=[3, 4]): "list becomes tuple"}[SEConfig(stages=(3, 4))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": 0}, r"`reduction` must be an integer of at least 1; received reduction=0"),
        ({"reduction": 8.0}, r"`reduction` must be an integer of at least 1; received reduction=8\.0"),
        ({"reduction": True}, r"`reduction` must be an integer of at least 1; received reduction=True"),
        ({"squeeze_divisor": 0}, r"`squeeze_divisor` must be an integer of at least 1; received squeeze_divisor=0"),
        ({"squeeze_divisor": True}, r"`squeeze_divisor` must be an integer of at least 1; received .*=True"),
        ({"squeeze": "mean"}, r"Unknown squeeze 'mean'.*Options: 'avg', 'max', 'avgmax'"),
        ({"gate_activation": "sigmoyd"}, r"Unknown gate_activation 'sigmoyd'\. Did you mean 'sigmoid'"),
        ({"gate_init": "ones"}, r"Unknown gate_init 'ones'.*Options: 'default', 'identity'"),
        ({"position": "standart"}, r"Unknown position 'standart'\. Did you mean 'standard'\?.*'conv3x3'"),
        ({"stages": ()}, r"at least one of the stages 1 to 5; received stages=\(\)\. Use `se=None`"),
        ({"stages": (2, 6)}, r"at least one of the stages 1 to 5; received stages=\(2, 6\)"),
        ({"stages": 3}, r"at least one of the stages 1 to 5; received stages=3"),
    ],
)
def test_bad_value_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SEConfig(**options)


def test_at_stage():
    assert all(SEConfig().at_stage(stage) == SEConfig() for stage in (1, 2, 3, 4, 5))
    config = SEConfig(stages=(3, 5))
    assert [config.at_stage(stage) for stage in (2, 3, 4, 5)] == [None, config, None, config]


@pytest.mark.parametrize(
    ("channels", "reduction", "divisor", "width"),
    [
        (64, 16, None, 4),  # the paper's rule
        (64, 16, 1, 4),
        (64, 16, 8, 8),  # timm's: at least one multiple of 8
        (128, 16, 8, 8),
        (256, 16, 8, 16),
        (320, 16, 8, 24),  # 20 lies between 16 and 24 and goes up
        (304, 16, 8, 16),  # 19 goes down
        (2048, 16, 8, 128),
        (216, 16, None, 13),  # ShuffleNet's first unit: 13.5 rounded down
        (24, 16, None, 1),
        (16, 16, None, 1),
        (1056, 16, None, 66),
        (576, 16, None, 36),
        (64, 2, None, 32),
    ],
)
def test_squeeze_width(channels, reduction, divisor, width):
    assert squeeze_width(channels, SEConfig(reduction=reduction, squeeze_divisor=divisor)) == width


def test_squeeze_width_refuses_a_reduction_above_the_channels():
    message = r"must not exceed the channels of any block; received reduction=32 for a block of 16 channels\. Lower"
    with pytest.raises(ValueError, match=message):
        squeeze_width(16, SEConfig(reduction=32))


@pytest.mark.parametrize("position", POSITIONS)
def test_excite_acts_at_its_own_position_only(position):
    x = keras.Input((4, 4, 32))
    for place in POSITIONS:
        y = excite(x, SEConfig(position=position), "se", position=place)
        assert (y is x) == (place != position)
    assert excite(x, None, "se", position=position) is x


def test_excite_passes_every_option_to_the_layer():
    x = keras.Input((4, 4, 64))
    config = SEConfig(
        reduction=16,
        squeeze="avgmax",
        activation="gelu",
        gate_activation="hard_sigmoid",
        use_bias=False,
        squeeze_divisor=8,
        gate_init="identity",
    )
    layer = excite(x, config, "unit_se")._keras_history.operation
    assert isinstance(layer, SqueezeExcite)
    assert layer.name == "unit_se"
    expected = {
        "reduction": 16,
        "squeeze_channels": 8,
        "squeeze": "avgmax",
        "activation": "gelu",
        "gate_activation": "hard_sigmoid",
        "use_bias": False,
        "gate_init": "identity",
    }
    assert {key: layer.get_config()[key] for key in expected} == expected
