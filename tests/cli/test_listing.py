"""Lists are there at once: without Keras, from data that is true."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import pytest

import se_keras
import se_keras_cli
from se_keras.catalog import known_builders, known_networks, known_recipes
from se_keras.models.registry import NETWORKS
from se_keras.training import RECIPES
from se_keras.weights.published import RECORDS

SCRIPT = pathlib.Path(__file__).parents[2] / "pretrained/make_catalog.py"
_SPEC = importlib.util.spec_from_file_location("make_catalog", SCRIPT)
make_catalog = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_catalog)


def test_lists_import_no_keras(run_python):
    printed = run_python(
        """
        import sys
        import se_keras_cli
        lists = ("list --max-params 6M", "list --weights --sort accuracy", "train --recipes", "list x")
        for line in (*lists, "info se_resnet50.a1_in1k"):
            print(se_keras_cli.main(line.split()), "keras" in sys.modules, file=sys.stderr)
            print(se_keras_cli.main([*line.split(), "--json"]), "keras" in sys.modules, file=sys.stderr)
        import se_keras
        print(*se_keras.list_models(has_weights=True))
        sys.stdout.flush()
        assert not {"keras", "tensorflow", "jax", "torch"} & set(sys.modules), "a list imports Keras"
        """
    )
    assert "se_resnet50" in printed


def test_catalog_names_every_network_builder_and_recipe():
    assert list(known_networks()) == sorted(NETWORKS)
    assert list(known_builders().items()) == list(make_catalog.builder_names().items())
    for name, facts in known_networks().items():
        assert make_catalog.network_facts(name).items() <= vars(facts).items()
    assert [vars(recipe) for recipe in known_recipes()] == make_catalog.recipe_facts()
    assert [recipe.name for recipe in known_recipes()] == list(RECIPES)


@pytest.mark.parametrize("name", ["se_resnet20", "mobilenetv3_small_050"])
def test_catalog_states_what_a_network_costs(name):
    """Those of the other networks of the paper are in `tests/models/test_parameter_trees.py`; timm's are on record."""
    facts = known_networks()[name]
    assert make_catalog.network_cost(name) == {"parameters": facts.parameters, "macs": facts.macs}


def test_costs_agree_with_those_of_the_records():
    for record in RECORDS.values():
        if record.reduction is None and not record.plain and record.classes is None:
            facts = known_networks()[record.model]
            assert facts.parameters == record.parameters, record.identifier
            if record.lineage is None and record.preprocessing.size == facts.size:
                assert facts.macs == record.macs, record.identifier


@pytest.mark.parametrize("columns", ["80", "60", ""])
@pytest.mark.parametrize("line", ["list", "list --weights", "list --weights --sort accuracy"])
def test_lists_cut_nothing(line, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert se_keras_cli.main(line.split()) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    names = se_keras.list_weights() if "--weights" in line else se_keras.list_models()
    for name in names:
        assert f"{name}\n" in out or f"{name} " in out
    if "--weights" in line:
        for record in RECORDS.values():
            assert record.top1 is None or f"{record.top1:.2f}" in out
            assert f"{record.macs / 1e9:.3g}" in out
        for heading in ("top-1", "params", "GMACs"):
            assert heading in out
    if columns == "80":  # with fewer it is no table, but lines for the terminal to break
        assert max(len(row) for row in out.splitlines() if not row.startswith("Accuracy")) <= 80


def test_lists_are_json(capsys):
    assert se_keras_cli.main(["list", "se_resnet50", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["parameters"] == 28_088_024
    assert "se_resnet50.a1_in1k" in row["weights"]
