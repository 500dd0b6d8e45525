"""What ``pip install`` makes of the project: the library, its data and its commands, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("av", "cv2", "scipy", "supervision", "trackers", "accelerate", "pycocotools", "tensorboard", "webdataset")
EXTRAS += ("openvino", "onnx", "onnxscript", "onnxruntime", "nncf")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the tree."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("stvit", "demo", "weights", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    for name in ("pyproject.toml", "app.py", "README.md", *PROJECT["license-files"]):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    run = [sys.executable, "-m", "pip", "wheel", "--quiet", *options, "--wheel-dir", target, source]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs Python in an environment that has the wheel, and the packages of this one; not in the project's folder."""
    environment, elsewhere = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [environment / "bin" / "python", *arguments]
        return subprocess.run(command, cwd=elsewhere, env=variables, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_the_wheel_holds_the_library_with_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {path for path in (ROOT / "stvit").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(ROOT).as_posix() for path in files}
    assert any(name.endswith(".toml") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["measure", "predict"])
def test_the_core_needs_no_package_of_an_extra(installed: Run, command: str) -> None:
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({EXTRAS!r})); import stvit, timm; "
        "print(stvit.__file__, timm.is_model('stvit_deit_tiny_patch16_224')); "
        f"sys.argv[1:] = ['--help']; runpy.run_module('stvit.{command}', run_name='__main__')"
    )
    done = installed("-c", program)
    assert done.returncode == 0, done.stderr
    path, registered = done.stdout.splitlines()[0].split()
    assert "site-packages" in path and not path.startswith(str(ROOT)) and registered == "True"
    assert f"python -m stvit.{command}" in done.stdout


@pytest.mark.slow
def test_neither_the_page_nor_the_catalogue_are_installed(installed: Run) -> None:
    program = "from importlib.util import find_spec; print(*map(find_spec, ('demo', 'weights', 'tests', 'app')))"
    assert installed("-c", program).stdout.split() == ["None"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("command", ["video", "evaluate", "export"])
def test_the_commands_run_from_another_folder(installed: Run, command: str) -> None:
    done = installed("-m", f"stvit.{command}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m stvit.{command}" in done.stdout


@pytest.mark.slow
def test_the_command_for_training_finds_its_recipes(installed: Run) -> None:
    done = installed("-m", "stvit.training", "--help")
    assert done.returncode == 0, done.stderr
    words = re.split(r"[\s,]+", done.stdout)
    recipes = {path.stem for path in (ROOT / "stvit" / "training" / "recipes").glob("*.toml")}
    assert {name for name in recipes if not name.startswith("_")} <= {*words}  # with _ begin those to inherit from


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("av", "video", ["video", "--help"]),
        ("av", "video", ["measure.gpu", "--help"]),
        ("openvino", "fast", ["export", "stvit_deit_tiny_patch16_224", "model.xml", "--random-weights"]),
        ("pycocotools", "train", ["evaluate", "--help"]),
        ("accelerate", "train", ["training", "classify", "--recipe", "imagenet_stvit_deit_small", "--output", "run"]),
    ],
)
def test_a_command_whose_packages_are_missing_says_in_one_line_what_to_install(
    installed: Run, package: str, extra: str, arguments: list[str]
) -> None:
    module, *more = arguments
    program = (
        f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv[1:] = {more!r}; "
        f"runpy.run_module('stvit.{module}', run_name='__main__')"
    )
    done = installed("-c", program)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert package in line and f"pip install 'stvit-studio[{extra}]'" in line


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines]
    return {requirement.name.lower(): requirement for requirement in parsed}


def test_what_spaces_installs_agrees_with_the_project() -> None:
    """Spaces installs requirements.txt before the code is there, so it cannot ask for the project itself."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    app = requirements([line for line in lines if line])
    extras = PROJECT["optional-dependencies"]
    library = requirements(PROJECT["dependencies"] + extras["video"] + extras["fast"])
    train = requirements(PROJECT["optional-dependencies"]["train"])
    assert library.keys() <= app.keys()
    for name in app.keys() & (library | train).keys():
        assert app[name].specifier == (library | train)[name].specifier, name
