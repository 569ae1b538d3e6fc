"""ChannelShuffle moves each channel where its docstring says."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from se_keras.layers import ChannelShuffle


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_channel_g_n_i_becomes_i_groups_g(groups, data_format, rng):
    x = rng.normal(size=(2, 3, 5, 12)).astype("float32")
    inputs = x if data_format == "channels_last" else np.moveaxis(x, -1, 1)
    outputs = ops.convert_to_numpy(ChannelShuffle(groups, data_format=data_format)(inputs))
    outputs = outputs if data_format == "channels_last" else np.moveaxis(outputs, 1, -1)
    n = 12 // groups
    for g in range(groups):
        for i in range(n):
            np.testing.assert_array_equal(outputs[..., i * groups + g], x[..., g * n + i])


def test_two_shuffles_undo_each_other(rng):
    x = rng.normal(size=(1, 2, 2, 12)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(ChannelShuffle(4)(ChannelShuffle(3)(x))), x)


def test_open_sizes_and_saving(tmp_path, rng):
    inputs = keras.Input((None, None, 12))
    model = keras.Model(inputs, ChannelShuffle(3)(inputs))
    assert model.output_shape == (None, None, None, 12)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(2, 3, 5, 12)).astype("float32")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), ops.convert_to_numpy(ChannelShuffle(3)(x)))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


@pytest.mark.parametrize("groups", [0, 5])
def test_groups_that_do_not_divide_the_channels_are_refused(groups):
    with pytest.raises(ValueError, match=rf"received groups={groups}"):
        ChannelShuffle(groups)(keras.Input((4, 4, 12)))


def test_unknown_channels_are_refused():
    with pytest.raises(ValueError, match=r"must divide the number of channels; received groups=3 for None channels"):
        ChannelShuffle(3)(keras.Input((4, 4, None)))


def test_groups_that_do_not_divide_the_channels_of_an_array_are_refused():
    with pytest.raises(ValueError, match=r"must divide the number of channels; received groups=3 for 4 channels"):
        ChannelShuffle(3)(np.ones((1, 2, 2, 4), "float32"))
