"""Check, before the project is pushed, that Spaces can build and run it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from demo.registry import Registry
from demo.space.lent_models import default_models

NEEDED = ("title", "sdk", "sdk_version", "python_version", "app_file", "suggested_hardware", "license")
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
MAX_DESCRIPTION = 60
ZERO_GPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")
ZERO_GPU_PYTHON = ("3.10.13", "3.12.12")
MAX_SPACE_BYTES = 10**9
MUST_COME = ("README.md", "requirements.txt", "pre-requirements.txt")
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---$", re.DOTALL | re.MULTILINE)


def problems(root: Path, files: Sequence[str], registry: Registry) -> Iterator[str]:
    """Say what is wrong with a project, one line each.

    Args:
        root: its folder.
        files: that are pushed, relative to it.
        registry: the models that the page offers.
    """
    settings = front_matter(root / "README.md")
    yield from _of_settings(settings)
    yield from _of_versions(settings, root)
    yield from _of_preload(settings, registry)
    yield from _of_files(root, files, str(settings.get("app_file")))


def front_matter(path: Path) -> dict[str, Any]:
    """Read the settings of a Space at the top of its README; empty where there are none."""
    found = FRONT_MATTER.match(path.read_text(encoding="utf-8"))
    settings = yaml.safe_load(found[1]) if found else None
    return settings if isinstance(settings, dict) else {}


def preload_lines(registry: Registry) -> list[str]:
    """Write ``preload_from_hub`` for the models that the tabs begin with: a repository and its files a line."""
    files: dict[str, list[str]] = {}
    for spec in default_models(Registry(registry, hub=True)):
        if spec.record is not None and spec.record.repo is not None:
            files.setdefault(spec.record.repo, []).append(spec.record.filename)
    return [f"{repo} {','.join(names)}" for repo, names in files.items()]


def _of_settings(settings: dict[str, Any]) -> Iterator[str]:
    for name in NEEDED:
        if not settings.get(name):
            yield f"README.md: the front matter says nothing of {name}."
    if settings.get("sdk") != "gradio":
        yield "README.md: sdk has to be gradio; ZeroGPU takes no other."
    for name in ("colorFrom", "colorTo"):
        if settings.get(name) not in COLOURS:
            yield f"README.md: {name} is none of {', '.join(COLOURS)}."
    if len(str(settings.get("short_description", ""))) > MAX_DESCRIPTION:
        yield f"README.md: short_description has more than {MAX_DESCRIPTION} characters."


def _of_versions(settings: dict[str, Any], root: Path) -> Iterator[str]:
    lines = [line.partition("#")[0].strip() for line in (root / "requirements.txt").read_text().splitlines()]
    required = {one.name: one.specifier for one in map(Requirement, filter(None, lines))}
    if not required["gradio"].contains(Version(str(settings.get("sdk_version", "0")))):
        yield f"README.md: sdk_version does not fit gradio{required['gradio']} of requirements.txt."
    if str(settings.get("python_version")) not in ZERO_GPU_PYTHON:
        yield f"README.md: python_version is none of ZeroGPU's {', '.join(ZERO_GPU_PYTHON)}."
    before = root / "pre-requirements.txt"
    pinned = re.search(r"^torch==(\S+)", before.read_text() if before.is_file() else "", re.MULTILINE)
    if pinned is None or pinned[1] not in ZERO_GPU_TORCH:
        yield f"pre-requirements.txt: torch has to be pinned to one of ZeroGPU's {', '.join(ZERO_GPU_TORCH)}."
    elif not required["torch"].contains(pinned[1]):
        yield f"pre-requirements.txt: torch {pinned[1]} does not fit torch{required['torch']} of requirements.txt."


def _of_preload(settings: dict[str, Any], registry: Registry) -> Iterator[str]:
    expected, found = preload_lines(registry), settings.get("preload_from_hub") or []
    if sorted(found) != sorted(expected):
        yield f"README.md: preload_from_hub has to be {expected}, the files of the models that the tabs begin with."


def _of_files(root: Path, files: Sequence[str], app_file: str) -> Iterator[str]:
    for name in (*MUST_COME, app_file):
        if name not in files:
            yield f"{name} is not among the files that are pushed."
    size = sum((root / name).stat().st_size for name in files if (root / name).is_file())
    if size > MAX_SPACE_BYTES:
        yield f"The files have {size / 1e6:.0f} MB; a Space takes {MAX_SPACE_BYTES / 1e6:.0f} MB."


def run_under_rules(registry: Registry, picture: Path) -> Iterator[str]:
    """Start as on ZeroGPU, under a stand-in of ``spaces``, and ask one picture; say what went wrong.

    CUDA must not be in use yet.
    """
    from demo.page import layout  # Gradio and PyTorch, which the real ``spaces`` has to come before
    from demo.server import local_runtime
    from demo.space.stand_in import zero_gpu

    with zero_gpu() as spaces:
        try:
            runtime = local_runtime(registry)
            pair = runtime.registry.pair(runtime.registry.first("classify"))
            with ThreadPoolExecutor(1) as visitor:
                visitor.submit(runtime.classify_file, str(picture), *pair).result()
            layout.build(runtime)
        except Exception as error:
            yield f"Under the rules of ZeroGPU: {type(error).__name__}: {error}"
        if not spaces.requested_s:
            yield "Under the rules of ZeroGPU: a picture borrowed no GPU."
