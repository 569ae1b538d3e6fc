"""A saved network loads where only the package is imported, in safe mode, and computes the same to the last bit."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from cases import ALL, PAPER, smallest_size
from keras import ops

from se_keras import SEConfig, create_model

LOAD = """
    import sys
    import numpy as np
    import se_keras  # nothing else: this alone must make the layers known

    import keras

    for name in {names}:
        folder = {folder!r}
        model = keras.saving.load_model(f"{{folder}}/{{name}}.keras", safe_mode=True)
        data = np.load(f"{{folder}}/{{name}}.npz")
        found = keras.ops.convert_to_numpy(model(data["photos"]))
        assert np.array_equal(found, data["expected"]), (name, np.abs(found - data["expected"]).max())
        assert se_keras.model_info(model).total.trainable == int(data["trainable"]), name
        print(name, "is the same", flush=True)
"""

OTHERS = PAPER if ALL else ("se_resnext26t", "se_resnext50", "se_bn_inception", "se_mobilenet")
OPTIONS = SEConfig(squeeze="avgmax", gate_activation="hard_sigmoid", gate_init="identity", squeeze_divisor=8)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("se_shufflenet", "se_resnet20"), id="quick"),
        pytest.param(OTHERS, id="others", marks=pytest.mark.slow),
    ],
)
def test_network_loads_in_a_fresh_process_and_computes_the_same(names, tmp_path, rng, run_warm):
    for name in names:
        size = smallest_size(name)
        model = create_model(name, input_shape=(size, size, 3), classes=10)
        for variable in model.weights:  # statistics and biases away from where a new network has them
            if not variable.path.endswith("kernel"):
                variable.assign(variable + np.abs(0.1 * rng.normal(size=variable.shape)))
        photos = rng.integers(0, 256, size=(2, size, size, 3)).astype("uint8")
        trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        expected = ops.convert_to_numpy(model(photos))
        np.savez(tmp_path / f"{name}.npz", photos=photos, expected=expected, trainable=trainable)
        model.save(tmp_path / f"{name}.keras")
    printed = run_warm(LOAD.format(names=names, folder=str(tmp_path)))
    assert printed.split("\n")[:-1] == [f"{name} is the same" for name in names]


def test_options_of_se_and_half_precision_survive_saving(tmp_path, rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = create_model("se_resnet20", se=OPTIONS)
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for layer in model.layers:
        if layer.name.endswith(("_se", "_conv1", "_bn1", "preprocessing")):
            assert loaded.get_layer(layer.name).get_config() == layer.get_config()
    assert loaded.get_layer("stage2_block1_se").compute_dtype == "bfloat16"
    photos = rng.integers(0, 256, size=(2, 32, 32, 3)).astype("uint8")
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(photos)), ops.convert_to_numpy(model(photos)))


def test_clone_has_the_same_structure_and_its_own_weights(rng):
    model = create_model("se_wide_resnet16_8", se=OPTIONS, input_shape=(16, 16, 3))
    clone = keras.models.clone_model(model)
    assert clone.get_config() == model.get_config()
    clone.set_weights(model.get_weights())
    photos = rng.integers(0, 256, size=(2, 16, 16, 3)).astype("uint8")
    np.testing.assert_array_equal(ops.convert_to_numpy(clone(photos)), ops.convert_to_numpy(model(photos)))
