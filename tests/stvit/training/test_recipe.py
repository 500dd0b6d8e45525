"""Recipes: what the package brings, and what a user may get wrong."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from stvit import create_model
from stvit.training.recipe import Recipe, RecipeError, load_recipe, names, plain
from stvit.training.tasks.task import Places, Task

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


GARMENT_CLASSIFIERS = [
    name for name in names() if name.startswith("garments_") and load_recipe(name).task == "classify"
]


def test_the_garment_models_are_trained_alike():
    """A table of their results is only fair if nothing but the model, its start and its teacher differ."""
    compared = [
        plain(load_recipe(name)) for name in GARMENT_CLASSIFIERS if not {"start", "continue"} & set(name.split("_"))
    ]
    assert len(compared) >= 7
    for recipe in compared:
        assert recipe["start"] and recipe["data"].pop("size") in (112, 224)
        del recipe["data"]["validation_samples"]
        own = {"model", "model_options", "start", "teacher"}
        assert {k: v for k, v in recipe.items() if k not in own} == {
            k: v for k, v in compared[0].items() if k not in own
        }


class BareTask(Task):
    """Builds its model; no data."""

    def losses(self, model, batch):
        raise AssertionError

    def evaluate(self, model, batches, accelerator, split="validation"):
        raise AssertionError


NARROW_STARTS = [n for n in names() if n.startswith("garments_") and load_recipe(n).start]


@pytest.mark.parametrize("name", [name for name in NARROW_STARTS if load_recipe(name).task != "video"])
def test_what_a_garment_recipe_starts_from_fits_its_model(name, tmp_path):
    recipe = load_recipe(name)
    trained = create_model(recipe.start["model"], **recipe.start["options"])
    save_file(trained.state_dict(), tmp_path / "start.safetensors")
    built = BareTask(recipe, Places({"start": tmp_path / "start.safetensors"})).build_model()
    given = {t.sum().item() for n, t in trained.state_dict().items() if n.endswith("mlp.fc1.weight")}
    taken = {t.sum().item() for n, t in built.state_dict().items() if n.endswith("mlp.fc1.weight")}
    assert given == taken


def test_a_start_of_other_sizes_is_refused(tmp_path):
    recipe = load_recipe("garments_deit", ["start.options.embed_dim=48"])
    save_file(
        create_model(recipe.start["model"], **recipe.start["options"]).state_dict(), tmp_path / "start.safetensors"
    )
    with pytest.raises(RecipeError, match="start does not fit its model"):
        BareTask(recipe, Places({"start": tmp_path / "start.safetensors"})).build_model()


@pytest.mark.parametrize("name", [name for name in names() if name.startswith("imagenet_")])
def test_only_what_follows_deit_repeats_its_samples(name):
    """Swin's paper leaves repeated augmentation out; EViT's authors shrink the keep rate from epoch 10 to 110."""
    recipe = load_recipe(name)
    assert recipe.repeats == (3 if "_deit_" in name else 1)
    assert recipe.keep_rate_epochs == ((10, 110) if "_evit_" in name else ())
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.layer_decay) == (300, 1024, 1e-3, 1.0)


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
        ("epochs=2.5", "wrong type: epochs is a whole number, not 2.5"),
        ("augmentation=3", "wrong type: augmentation is a table, not 3"),
        ("betas=0.9", "wrong type"),
        ("betas=[0.9]", "betas are two numbers"),
        ("schedule=steps", "needs milestones"),
        ("start={options={}}", "start names no model"),
        ("teacher={weight=0.5}", "teacher names no model"),
        ("repeats=0", "repeats is at least 1"),
        ("repeats=1.5", "wrong type: repeats"),
        ("layer_decay=0", "layer_decay lies in"),
        ("layer_decay=1.2", "layer_decay lies in"),
        ("keep_rate_epochs=[2]", "keep_rate_epochs are two"),
        ("keep_rate_epochs=[3, 3]", "keep_rate_epochs are two"),
        ("keep_rate_epochs=[1, 5]", r"from 0 to 4, not \[1, 5\]"),
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
