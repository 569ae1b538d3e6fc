"""Everything but exports works where TensorFlow cannot be imported, on JAX and on PyTorch."""

from __future__ import annotations

import importlib.util
import os

import pytest
from warm_python import FAST_XLA

WORK = """
    import importlib.machinery, sys

    class Hidden(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            hidden = name.split(".")[0] in ("tensorflow", "tf_keras", "tensorflow_hub")
            return None if hidden else super().find_spec(name, path, target)

    sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Hidden
    try:
        import tensorflow
    except ImportError:
        pass
    else:
        raise SystemExit("the test does not keep TensorFlow out")

    import keras, numpy as np
    import se_keras

    sys.path.append({tests!r})
    from small_networks import shortened

    assert keras.backend.backend() == {backend!r}
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, size=(8, 40, 48, 3)).astype("uint8")
    options = dict(se=se_keras.SEConfig(reduction=4), input_shape=(16, 16, 3), classes=3)
    model = shortened("se_resnet20", **options)
    inputs = se_keras.preprocess(photos, model)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.trainable_weights]
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    history = model.fit(inputs, np.arange(8) % 3, batch_size=8, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    changed = [
        not np.array_equal(keras.ops.convert_to_numpy(weight), old)
        for weight, old in zip(model.trainable_weights, before, strict=True)
    ]
    assert np.mean(changed) > 0.9
    probabilities = model.predict(inputs, verbose=0)
    assert probabilities.shape == (8, 3)
    assert len(se_keras.decode_predictions(probabilities, class_names=["a", "b", "c"], top=1)) == 8

    layer = model.get_layer("stage3_block1_se")
    features = se_keras.feature_extractor(model, ["stage3_block1_bn2"])(inputs)["stage3_block1_bn2"]
    gates = keras.ops.convert_to_numpy(layer.gates(features))
    assert gates.shape == (8, 1, 1, 32) and 0 < gates.min() and gates.max() < 1

    info = se_keras.model_info(se_keras.SEResNet20())
    assert info.total.trainable == 274_847 and 40.7e6 < info.total.macs < 40.9e6
    assert se_keras.model_info(se_keras.SEResNet20(input_shape=(None, None, 3)), (32, 32, 3)).total == info.total

    model.save("model.keras")
    loaded = keras.saving.load_model("model.keras")
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), probabilities, rtol=1e-5, atol=1e-6)
    model = se_keras.SEResNet20(**options)
    model.save_weights("model.weights.h5")
    again = se_keras.SEResNet20(**options, weights="model.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))

    assert "tensorflow" not in sys.modules
    print("works on", keras.backend.backend())
"""


@pytest.mark.parametrize("backend", ["jax", pytest.param("torch", marks=[pytest.mark.torch, pytest.mark.slow])])
@pytest.mark.slow
def test_package_works_where_tensorflow_cannot_be_imported(backend, tmp_path, monkeypatch, run_python):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    monkeypatch.chdir(tmp_path)
    code = WORK.format(backend=backend, tests=os.path.dirname(__file__))
    assert f"works on {backend}" in run_python(code, KERAS_BACKEND=backend, **FAST_XLA)
