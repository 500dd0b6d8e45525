"""Recipes: what the package brings, and what a user may get wrong."""

from pathlib import Path

import pytest
import timm
import torch

from stvit.training.recipe import Recipe, RecipeError, load_recipe, names

WRITTEN = """
task = "classify"
model = "deit_tiny_patch16_224"
epochs = 4
batch_size = 8
learning_rate = 1e-3
betas = [0.9, 0.95]
[data]
kind = "garments"
size = 32
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    file = tmp_path / "own.toml"
    file.write_text(WRITTEN)
    return file


@pytest.mark.parametrize("name", names())
def test_every_recipe_builds_its_model(name):
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = timm.create_model(recipe.model, **recipe.model_options)
    assert sum(p.numel() for p in model.parameters()) > 1e5
    assert recipe.warmup_epochs < recipe.epochs


def test_the_garment_models_are_trained_alike():
    """A table of their results is only fair if nothing but the model differs."""
    recipes = [load_recipe(name) for name in names() if name.startswith("garments_")]
    settings = {
        (
            r.epochs,
            r.batch_size,
            r.learning_rate,
            r.warmup_epochs,
            r.weight_decay,
            r.clip_norm,
            r.seed,
            str(r.augmentation),
        )
        for r in recipes
        if r.task == "classify"
    }
    assert len(settings) == 1


def test_a_file_of_ones_own(written):
    recipe = load_recipe(str(written))
    assert (recipe.epochs, recipe.betas, recipe.data["size"]) == (4, (0.9, 0.95), 32)


def test_changes_reach_tables_and_keep_types(written):
    changes = ["epochs=2", "data.size=48", "model_options.drop_path_rate=0.25", "schedule=polynomial", "start.model=x"]
    recipe = load_recipe(str(written), changes)
    assert (recipe.epochs, recipe.data["size"], recipe.schedule) == (2, 48, "polynomial")
    assert recipe.model_options == {"drop_path_rate": 0.25} and recipe.start == {"model": "x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epoch=2", "a recipe has no epoch"),
        ("epochs", "write key=value"),
        ("epochs.few=2", "names no table"),
        ("epochs=0", "at least 1"),
        ("epochs=two", "wrong type"),
        ("task=paint", "no task 'paint'"),
        ("schedule=zigzag", "no schedule 'zigzag'"),
        ("warmup_epochs=9", "warmup_epochs lies"),
        ("data={}", "names no kind"),
    ],
)
def test_what_makes_no_recipe_is_named(written, change, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(written), [change])


def test_unknown_recipes_list_the_known_ones():
    with pytest.raises(RecipeError, match="garments_deit"):
        load_recipe("no_such_recipe")


def test_broken_files_and_missing_entries_are_named(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("epochs = = 3")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(str(broken))
    broken.write_text('task = "classify"')
    with pytest.raises(RecipeError, match="lacks model, data"):
        load_recipe(str(broken))


def test_recipes_do_not_change():
    recipe = load_recipe("garments_deit")
    with pytest.raises(AttributeError):
        recipe.epochs = 3
    assert isinstance(recipe, Recipe)
