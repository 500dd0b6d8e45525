"""Recipes: what the package brings, and what a user may get wrong."""

import json
from pathlib import Path

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from stvit import create_model
from stvit.training.datasets.data import MapData, make_data
from stvit.training.recipe import DataPaths, Recipe, RecipeError, load_recipe, names, plain
from stvit.training.tasks.task import Task

WRITTEN = """
task = "classify"
model = "deit_tiny_patch16_224"
epochs = 4
batch_size = 8
learning_rate = 1e-3
betas = [0.9, 0.95]
[data]
kind = "weights.garments.training:GarmentPictures"
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
    original = {"of": "deit_tiny_patch16_224"} if name == "garments_sparsify_deit" else {}  # given with its weights
    with torch.device("meta"):
        model = timm.create_model(recipe.model, **original, **recipe.model_options)
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
    trained = create_model(recipe.start.model, **recipe.start.options)
    save_file(trained.state_dict(), tmp_path / "start.safetensors")
    built = BareTask(recipe, DataPaths({"start": tmp_path / "start.safetensors"})).build_model()
    given = {t.sum().item() for n, t in trained.state_dict().items() if n.endswith("mlp.fc1.weight")}
    taken = {t.sum().item() for n, t in built.state_dict().items() if n.endswith("mlp.fc1.weight")}
    assert given == taken


def test_a_start_of_other_sizes_is_refused(tmp_path):
    recipe = load_recipe("garments_deit", ["start.options.embed_dim=48"])
    save_file(create_model(recipe.start.model, **recipe.start.options).state_dict(), tmp_path / "start.safetensors")
    with pytest.raises(RecipeError, match="start does not fit its model"):
        BareTask(recipe, DataPaths({"start": tmp_path / "start.safetensors"})).build_model()


@pytest.mark.parametrize("name", [name for name in names() if name.startswith("imagenet_")])
def test_only_what_follows_deit_repeats_its_samples(name):
    """Swin's paper leaves repeated augmentation out; EViT's authors shrink the keep rate from epoch 10 to 110."""
    recipe = load_recipe(name)
    assert recipe.repeats == (3 if "_deit_" in name else 1)
    assert recipe.keep_rate_epochs == ((10, 110) if "_evit_" in name else ())
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.layer_decay) == (300, 1024, 1e-3, 1.0)


def test_recipes_resolve_to_what_they_did():
    """A change in a base changes no recipe unnoticed; the golden file holds what differs from the defaults."""
    golden = json.loads((Path(__file__).parent / "resolved_recipes.json").read_text())
    assert {name: load_recipe(name).model_dump(mode="json", exclude_defaults=True) for name in names()} == golden


def test_a_recipe_inherits_key_by_key(tmp_path, written):
    heir = tmp_path / "heir.toml"
    heir.write_text('base = "own"\nepochs = 9\nbetas = [0.5, 0.6]\n[data]\nsize = 64\n[loss]\na = 1')
    (tmp_path / "grandchild.toml").write_text('base = "heir"\n[data]\nsize = 96')
    recipe = load_recipe(str(tmp_path / "grandchild.toml"), ["seed=3"])
    assert (recipe.epochs, recipe.betas, recipe.seed, recipe.loss) == (9, (0.5, 0.6), 3, {"a": 1})
    assert recipe.data == {"kind": load_recipe(str(written)).data["kind"], "size": 96}


@pytest.mark.parametrize(
    ("base", "message"),
    [("'heir'", "is its own base"), ("'nobody'", "no recipe 'nobody'"), ("3", "not the name of a recipe: 3")],
)
def test_a_base_that_is_none_is_named(tmp_path, base, message):
    (tmp_path / "heir.toml").write_text(f"base = {base}")
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(tmp_path / "heir.toml"))


def test_recipes_are_found_in_the_folders_that_the_project_lists(tmp_path, written, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "own" not in names() and "imagenet_stvit_deit_small" in names()
    (tmp_path / "pyproject.toml").write_text('[tool.stvit]\nrecipes = ["."]')
    (tmp_path / "_part.toml").write_text("epochs = 3")
    assert "own" in names() and "_part" not in names()
    assert load_recipe("own").epochs == 4
    (tmp_path / "pyproject.toml").write_text("[tool.stvit]\nrecipes = 3")
    with pytest.raises(RecipeError, match="no list of folders"):
        names()


def test_data_of_ones_own_are_named_by_module_and_class(written):
    recipe = load_recipe(str(written), ["data={kind='tests.stvit.training.test_recipe:OwnData', shade=3}"])
    data = make_data({}, recipe, DataPaths({}))
    assert isinstance(data, OwnData) and data.shade == 3
    for kind, message in (("no.such:Thing", "No module named"), ("math:Thing", "has no attribute 'Thing'")):
        with pytest.raises(RecipeError, match=f"kind '{kind}' cannot be found: .*{message}"):
            make_data({}, load_recipe(str(written), [f"data.kind={kind}"]), DataPaths({}))


class OwnData(MapData):
    def __init__(self, recipe, paths):
        self.shade = recipe.data["shade"]

    def dataset(self, split, epoch):
        raise AssertionError


def test_a_file_of_ones_own(written):
    recipe = load_recipe(str(written))
    assert (recipe.epochs, recipe.betas, recipe.data["size"]) == (4, (0.9, 0.95), 32)


def test_changes_reach_tables_and_keep_types(written):
    changes = ["epochs=2", "data.size=48", "model_options.drop_path_rate=0.25", "schedule=polynomial", "start.model=x"]
    recipe = load_recipe(str(written), changes)
    assert (recipe.epochs, recipe.data["size"], recipe.schedule) == (2, 48, "polynomial")
    assert recipe.model_options == {"drop_path_rate": 0.25} and recipe.start.model == "x"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epoch=2", "a recipe has no epoch"),
        ("epochs", "write key=value"),
        ("epochs.few=2", "names no table"),
        ("epochs=0", "epochs = 0: input should be greater than or equal to 1"),
        ("epochs=two", "epochs = 'two': input should be a valid integer"),
        ("task=paint", "task = 'paint': input should be 'classify'"),
        ("schedule=zigzag", "schedule = 'zigzag'"),
        ("warmup_epochs=9", "warmup_epochs lies"),
        ("data={}", "data names no kind"),
        ("epochs=2.5", "epochs = 2.5: input should be a valid integer"),
        ("augmentation=3", "augmentation = 3: input should be a valid dictionary"),
        ("betas=0.9", "betas = 0.9"),
        ("betas=[0.9]", "lacks betas.1"),
        ("schedule=steps", "needs milestones"),
        ("start={options={}}", "lacks start.model"),
        ("teacher={weight=0.5}", "lacks teacher.model"),
        ("repeats=0", "repeats = 0"),
        ("repeats=1.5", "repeats = 1.5"),
        ("layer_decay=0", "layer_decay = 0"),
        ("layer_decay=1.2", "layer_decay = 1.2"),
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
    with pytest.raises(RecipeError, match="lacks model; the recipe lacks data"):
        load_recipe(str(broken))


def test_recipes_do_not_change():
    recipe = load_recipe("garments_deit")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.epochs = 3
    assert isinstance(recipe, Recipe)
