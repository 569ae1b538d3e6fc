"""Recipes: what they say is what the optimizer does."""

import dataclasses
import re
from typing import get_args

import keras
import numpy as np
import pytest

from se_keras.training import recipes, trainable
from se_keras.training.recipes import RECIPES, Phase, Recipe, get_recipe, make_optimizer


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_complete(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert len(recipe.source) > 10
    assert recipe.evidence
    assert recipe.epochs == sum(phase.epochs for phase in recipe.phases)
    for phase in recipe.phases:
        make_optimizer(recipe, phase, 10).build([keras.Variable(np.zeros((2, 2), "float32"), name="kernel")])


def test_paper_recipe_is_the_papers():
    recipe = get_recipe("imagenet")
    (phase,) = recipe.phases
    rate = make_optimizer(recipe, phase, 1251).learning_rate
    optimizer = make_optimizer(recipe, phase, 1251)
    rates = []
    for epoch in (0, 29, 30, 59, 60, 89, 90, 99):
        optimizer.iterations.assign(epoch * 1251 + 1)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.6, 0.6, 0.06, 0.06, 0.006, 0.006, 0.0006, 0.0006], rtol=1e-5)
    assert float(rate) == pytest.approx(0.6)
    assert recipe.batch_size == 1024
    assert not optimizer.nesterov


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "Unknown schedule 'linear'. Options: 'cosine', 'step', 'constant'"),
        ({"trainable": "heads"}, "Unknown trainable 'heads'. Did you mean 'head'?"),
        ({"learning_rate": -1}, "`learning_rate` must be a finite number of at least 0; received learning_rate=-1."),
        ({"learning_rate": float("nan")}, "received learning_rate=nan"),
        ({"learning_rate": "0.1"}, "received learning_rate='0.1'"),
        ({"warmup_epochs": -1}, "`warmup_epochs` must be"),
        ({"step_factor": -0.1}, "`step_factor` must be"),
        ({"epochs": 1.5}, "`epochs` must be"),
        ({"schedule": "step", "warmup_epochs": 5}, "`warmup_epochs` needs schedule='cosine'; received schedule='step'"),
    ],
)
def test_phases_that_would_train_something_else_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Phase(**{"epochs": 1, "learning_rate": 0.1, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adam"}, "Unknown optimizer 'adam'. Did you mean 'adamw'?"),
        ({"label_smoothing": 10}, "`label_smoothing` must be a finite number of at least 0 and at most 1; received"),
        ({"weight_decay": -1e-4}, "`weight_decay` must be"),
        ({"weight_decay": None}, "received weight_decay=None"),
        ({"average": 99.99}, "`average` must be"),
        ({"clip_norm": 0}, "`clip_norm` must be a finite number above 0"),
        ({"phases": ()}, "`phases` must be one or more `Phase`; received phases=()"),
        ({"phases": ({"epochs": 1},)}, "`phases` must be one or more `Phase`"),
    ],
)
def test_recipes_that_would_train_something_else_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(get_recipe("finetune"), **changes)


def test_every_option_of_a_recipe_does_something_of_its_own():
    rates, kinds = set(), set()
    for name in get_args(recipes.OptimizerName):
        for schedule in get_args(recipes.Schedule):
            phase = Phase(epochs=4, learning_rate=0.1, schedule=schedule, step_epochs=1)
            recipe = Recipe(name="t", phases=[phase], batch_size=1, optimizer=name, source="these tests")
            optimizer = make_optimizer(recipe, recipe.phases[0], 10)
            optimizer.iterations.assign(15)
            rates.add(round(float(optimizer.learning_rate), 6))
            kinds.add(type(optimizer))
    assert (len(rates), len(kinds)) == (3, 2)
    assert {*trainable._LEARNS} == {*trainable._NAMED} == {*get_args(recipes.Trainable)}


def test_unknown_recipe_lists_the_known():
    with pytest.raises(ValueError, match=r"no recipe 'imagnet'. Available recipes: imagenet, .*finetune"):
        get_recipe("imagnet")


def test_cosine_climbs_and_falls():
    recipe = get_recipe("cifar")
    optimizer = make_optimizer(recipe, recipe.phases[0], 100)
    rates = []
    for step in (0, 100, 200, 2100, 3999):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates[0] < 0.01
    assert rates[1] == pytest.approx(0.1, rel=0.02)
    assert rates[2] == pytest.approx(0.2, rel=1e-3)
    assert rates[3] == pytest.approx(0.1, rel=0.02)
    assert rates[4] < 1e-4


def test_weight_decay_equals_a_penalty_in_the_loss():
    """In the long run: without a gradient, both shrink a weight by rate * decay / (1 - momentum) a step."""
    recipe = Recipe(
        name="t",
        phases=(Phase(epochs=1, learning_rate=0.1, schedule="constant"),),
        batch_size=1,
        weight_decay=1e-3,
        nesterov=False,
        source="these tests",
    )
    ours = keras.Variable(np.ones(3, "float32"), name="kernel")
    optimizer = make_optimizer(recipe, recipe.phases[0], 1)
    penalised, velocity = np.ones(3), np.zeros(3)
    for _ in range(300):
        optimizer.apply([keras.ops.zeros(3)], [ours])
        velocity = 0.9 * velocity + 1e-3 * penalised
        penalised = penalised - 0.1 * velocity
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), penalised, rtol=0.02)
    assert penalised[0] < 0.8


def test_norms_and_biases_are_spared():
    recipe = dataclasses.replace(get_recipe("cifar"), phases=(Phase(epochs=1, learning_rate=0.1, schedule="constant"),))
    variables = [keras.Variable(np.ones(3, "float32"), name=name) for name in ("kernel", "gamma", "beta", "bias")]
    optimizer = make_optimizer(recipe, recipe.phases[0], 1)
    optimizer.apply([keras.ops.zeros(3)] * 4, variables)
    values = [float(keras.ops.convert_to_numpy(variable)[0]) for variable in variables]
    assert values[0] < 1
    assert values[1:] == [1, 1, 1]


@pytest.mark.parametrize("epochs", [2, 3, 5, 10, 25])
def test_phases_keep_their_share_of_other_epochs(epochs):
    recipe = get_recipe("finetune").with_epochs(epochs)
    assert recipe.epochs == epochs
    assert all(phase.epochs >= 1 for phase in recipe.phases)
    assert recipe.phases[0].epochs == max(1, round(0.3 * epochs))


def test_steps_and_warmup_scale_with_the_epochs():
    assert get_recipe("imagenet").with_epochs(10).phases[0].step_epochs == 3
    assert get_recipe("imagenet_modern").with_epochs(24).phases[0].warmup_epochs == pytest.approx(1)
    with pytest.raises(ValueError, match="2 phases, each of at least one epoch; received epochs=1"):
        get_recipe("finetune").with_epochs(1)


def test_learning_rate_follows_the_batch():
    assert get_recipe("imagenet").with_batch_size(256).phases[0].learning_rate == pytest.approx(0.15)
