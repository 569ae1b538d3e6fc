"""pretrained/study_pairs.py trains as `model.fit` does, each seed as if it were alone, and goes on where it stopped."""

from __future__ import annotations

import importlib.util
import itertools
import pathlib
from types import ModuleType

import keras
import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "pretrained" / "study_pairs.py"

# A network with everything that the study's have, small enough to be compiled in a second.
SETTING = f"""
    import dataclasses, itertools, pathlib, sys, tempfile
    import jax, jax.numpy as jnp, keras, numpy as np

    sys.path.insert(0, {str(SCRIPT.parent)!r})
    import seed_states
    import study_pairs as study

    from se_keras.blocks.conv_norm_act import conv_norm_act
    from se_keras.layers import ImagePreprocessing, SqueezeExcite

    recipe = dataclasses.replace(study.get_recipe("cifar").with_epochs(3), batch_size=8, transforms=())
    recipe = dataclasses.replace(recipe, phases=(dataclasses.replace(recipe.phases[0], learning_rate=0.05),))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (19, 8, 8, 3)).astype("uint8")
    labels = (np.arange(19) % 3).astype("int32")
    images = study.Images(*map(jnp.asarray, (pixels[:8], labels[:8], pixels, labels)), "")

    def build():
        inputs = keras.Input((8, 8, 3))
        x = ImagePreprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))(inputs)
        x = SqueezeExcite(2)(conv_norm_act(x, 8, 3, name="a_{{}}"))
        x = keras.layers.GlobalAveragePooling2D()(conv_norm_act(x, 8, 3, strides=2, name="b_{{}}"))
        outputs = keras.layers.Dense(3, activation="softmax")(x)
        model = keras.Model(inputs, outputs)
        steps = len(images.x_train) // recipe.batch_size
        model.compile(study.make_optimizer(recipe, recipe.phases[0], steps), keras.losses.CategoricalCrossentropy())
        return model

    def checkpoint(folder, seeds):
        return study.Checkpoint(pathlib.Path(folder), "tiny", seeds)

    def trained(seeds, epochs=3, **options):
        with tempfile.TemporaryDirectory() as folder:
            return study.train_seeds(
                build, dataclasses.replace(recipe, phases=(dataclasses.replace(recipe.phases[0], epochs=epochs),)),
                images, seeds, checkpoint=checkpoint(folder, seeds), say=lambda line: None, **options
            )

    def same(a, b, **tolerance):
        for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(np.asarray(one), np.asarray(other), **tolerance)
"""

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")


@pytest.fixture
def run_study(run_warm):
    def run(code):
        return run_warm(SETTING + code, "jax")

    return run


@pytest.mark.slow
def test_seeds_together_are_keras_own_steps_and_each_as_if_alone(run_study):
    run_study(
        """
    _, state, progress = trained((3, 5))
    keras.utils.set_random_seed(5)
    model = build()
    for _ in range(3):  # an epoch is one step here, in which the order of the images does not matter
        loss = model.train_on_batch(pixels[:8], np.eye(3, dtype="float32")[labels[:8]])
    assert abs(progress.history[-1][2][1] - loss) < 1e-5
    groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
    keras_state = [[variable.value for variable in group] for group in groups]
    same([[leaf[1] for leaf in group] for group in state[:3]], keras_state, rtol=1e-5, atol=1e-6)
    accuracy = np.mean(model.predict_on_batch(pixels).argmax(-1) == labels)
    assert abs(progress.history[-1][1][1] - accuracy) < 1e-6
    _, alone, _ = trained((5,))
    same([leaf[1] for leaf in jax.tree.leaves(state)], [leaf[0] for leaf in jax.tree.leaves(alone)],
         rtol=1e-5, atol=1e-6)
    study.put_back(model, alone, 0)
    assert np.array_equal(model.get_weights()[0], np.asarray(alone[0][0][0]))
    kernels = np.asarray(state[0][0])
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
    """
    )


@pytest.mark.slow
def test_stopped_training_goes_on_where_it_was(run_study):
    run_study(
        """
    more = (np.tile(pixels[:8], (3, 1, 1, 1)), np.tile(labels[:8], 3))
    images = study.Images(*map(jnp.asarray, (*more, pixels, labels)), "")
    recipe = dataclasses.replace(recipe, transforms=study.get_recipe("cifar").transforms)
    seeds = (0, 1)
    _, whole, progress = trained(seeds)
    with tempfile.TemporaryDirectory() as folder:
        state_files = checkpoint(pathlib.Path(folder) / "state", seeds)

        class Killed(Exception):
            pass

        class Killing(study.Checkpoint):
            def save(self, state, progress):
                super().save(state, progress)
                if progress.epoch == 2:
                    first = self._file(0, 2)
                    first.rename(first.with_name("kept"))  # as if it had been killed while it wrote the files
                    super().save(*saved)
                    first.with_name("kept").rename(first)
                    raise Killed
                saved[:] = jax.tree.map(jnp.copy, state), dataclasses.replace(progress)

        saved = []
        options = dict(save_every=1, say=lambda line: None)
        killing = Killing(state_files.folder, "tiny", seeds)
        try:
            study.train_seeds(build, recipe, images, seeds, checkpoint=killing, **options)
        except Killed:
            pass
        assert sorted(path.name for path in state_files.folder.iterdir()) == [
            "tiny.seed0.epoch1.npz", "tiny.seed0.epoch2.npz", "tiny.seed1.epoch1.npz"
        ]
        try:
            study.train_seeds(build, recipe, images, seeds, checkpoint=state_files, deadline=0.0, **options)
        except study.OutOfTimeError:
            pass
        _, resumed, again = study.train_seeds(build, recipe, images, seeds, checkpoint=state_files, **options)
        same(whole, resumed, rtol=1e-6, atol=1e-7)
        assert again.history == progress.history and again.seconds > 0
        state_files.remove()
        assert not state_files.folder.exists()
    """
    )


@pytest.fixture
def study(monkeypatch) -> ModuleType:
    """The script, for what needs no training: here Keras may be on another backend than JAX."""
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("study_pairs")


def test_augmentation_on_the_device_is_the_recipes(study, rng):
    import jax
    from seeds_together import augmenter

    recipe = study.get_recipe("cifar")
    image = rng.integers(0, 256, (8, 8, 3)).astype("uint8")
    changed = np.asarray(augmenter(recipe)(jax.random.key(0), np.broadcast_to(image, (600, 8, 8, 3))))
    padding = recipe.transforms[0].padding
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    offsets = range(2 * padding + 1)
    possible = {}
    for top, left in itertools.product(offsets, offsets):
        crop = padded[top : top + 8, left : left + 8]
        possible[crop.tobytes()], possible[crop[:, ::-1].tobytes()] = (top, left, 0), (top, left, 1)
    drawn = [possible[image.tobytes()] for image in changed]
    assert {top for top, _, _ in drawn} == {left for _, left, _ in drawn} == set(offsets)
    assert 0.4 < np.mean([flipped for _, _, flipped in drawn]) < 0.6
    with pytest.raises(ValueError, match="PadAndCrop, RandomFlip; received 'imagenet'"):
        augmenter(study.get_recipe("imagenet"))


def test_table_pairs_the_seeds_of_one_study(study, tmp_path):
    row = {"parameters": 1000, "seconds_of_all": 30.0, "trained_together": 2}
    images = study.Images(np.zeros((19, 8, 8, 3)), np.arange(19) % 3, np.zeros((8, 8, 8, 3)), np.arange(8) % 3, "")
    found = {
        "facts": study.facts_of(study.get_recipe("cifar"), images, "float32"),
        "runs": {
            "net/plain": {"0": {"accuracy": 0.90, **row}, "1": {"accuracy": 0.92, **row}},
            "net/se": {"1": {"accuracy": 0.93, **row}, "0": {"accuracy": 0.91, **row}},
            "net/se_max": {"7": {"accuracy": 0.5, **row}},
        },
    }
    text = study.table(found)
    assert "40 epochs of the recipe `cifar`, 19 training and 8 test images, float32." in text
    assert "| net | `plain` | 1,000 | 2 | 91.00 ± 1.41 |  |  | 30 |" in text
    assert "| net | `se` | 1,000 | 2 | 92.00 ± 1.41 | +1.00 ± 0.00 | +1.00 to +1.00 | 30 |" in text
    assert "| net | `se_max` | 1,000 | 1 | 50.00 |  |  | 15 |" in text
    found["runs"]["net/se"]["1"]["accuracy"] = 0.94
    # Differences of 1 and 2 points: 1.5, and Student's t of one degree of freedom, 12.706, times 0.5.
    assert "| +1.50 ± 0.71 | -4.85 to +7.85 |" in study.table(found)
    path = tmp_path / "results.json"
    study.write_results(path, found)
    assert study.read_results(path, found["facts"]) == found
    other = {"facts": found["facts"], "runs": {"net/se": {"2": {"accuracy": 0.91, **row}}}}
    study.write_results(tmp_path / "other.json", other)
    joined = study.joined([path, tmp_path / "other.json"])
    assert list(joined["runs"]) == list(found["runs"])
    assert list(joined["runs"]["net/se"]) == ["1", "0", "2"]
    study.write_results(tmp_path / "foreign.json", {"facts": {**found["facts"], "epochs": 4}, "runs": {}})
    with pytest.raises(ValueError, match="another study"):
        study.joined([path, tmp_path / "foreign.json"])
    with pytest.raises(ValueError, match="another study \\(epochs was 40, is 4\\)"):
        study.read_results(path, {**found["facts"], "epochs": 4})


def test_variants_differ_and_belong_to_the_networks_of_the_study(study):
    assert len(set(study.VARIANTS.values())) == len(study.VARIANTS)
    sizes = [
        study.se_keras.create_model("se_resnet20", se=study.VARIANTS[name]).count_params()
        for name in ("plain", "se_r4")
    ]
    assert sizes[0] < sizes[1]


def test_missing_results_are_named(study, tmp_path, monkeypatch, capsys):
    given = ["--join", tmp_path / "gone.json", "--out", tmp_path / "out.json"]
    monkeypatch.setattr("sys.argv", ["study_pairs.py", *map(str, given)])
    with pytest.raises(SystemExit, match="2"):
        study.arguments()
    assert "gone.json" in capsys.readouterr().err
