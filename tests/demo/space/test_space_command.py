"""``python -m demo.space``: what it finds wrong, and what a local Hub gets."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from demo.registry import Registry
from demo.space.check import MAX_SPACE_BYTES, problems, run_under_rules
from demo.space.push import PushFailed, files_to_push, push
from tests.demo.conftest import OFFERED
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[3]
SPACE = "someone/studio"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with what the check reads, and some that no Space needs; git knows all but ``secret.txt``."""
    folder = tmp_path / "project"
    for name in ("README.md", "requirements.txt", "pre-requirements.txt", "app.py", "Makefile"):
        folder.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_it.py").write_text("")
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "."], check=True)
    (folder / "secret.txt").write_text("token")
    return folder


@pytest.fixture
def space_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    return hub


def found(project: Path) -> list[str]:
    return list(problems(project, files_to_push(project), OFFERED))


def test_the_project_is_ready_for_spaces() -> None:
    assert list(problems(ROOT, files_to_push(ROOT), OFFERED)) == []


def test_no_tests_and_nothing_that_git_does_not_know_is_pushed(project: Path) -> None:
    assert files_to_push(project) == ["README.md", "app.py", "pre-requirements.txt", "requirements.txt"]
    with pytest.raises(PushFailed, match="no git repository"):
        files_to_push(project.parent)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("README.md", "---\ntitle", "title", "says nothing of title"),
        ("README.md", "sdk: gradio", "sdk: docker", "sdk has to be gradio"),
        ("README.md", "colorFrom: indigo", "colorFrom: teal", "colorFrom is none of"),
        ("README.md", "short_description: ", f"short_description: {'long ' * 12}", "more than 60 characters"),
        ("README.md", "sdk_version: 6.31.0", "sdk_version: 5.0.0", "does not fit gradio"),
        ("README.md", '"3.12.12"', '"3.13"', "none of ZeroGPU's"),
        ("README.md", "STViT-R-Swin-S.pth,", "", "preload_from_hub has to be"),
        ("pre-requirements.txt", "torch==2.11.0", "torch==2.14.0", "pinned to one of ZeroGPU's"),
        ("requirements.txt", "torch>=2.11", "torch>=2.12", "does not fit torch"),
    ],
)
def test_what_spaces_would_refuse_is_said_before(project: Path, name: str, old: str, new: str, told: str) -> None:
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new, 1))
    assert any(told in problem for problem in found(project))


def test_missing_and_large_files_are_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "app.py").unlink()
    monkeypatch.setattr("demo.space.check.MAX_SPACE_BYTES", 100)
    words = found(project)
    assert "app.py is not among the files that are pushed." in words and "a Space takes" in words[-1]
    assert MAX_SPACE_BYTES == 10**9


def test_a_picture_is_answered_under_the_rules_of_zero_gpu(garments: Registry, photo: Path) -> None:
    bundled = Registry(spec for spec in garments if spec.bundled)
    assert list(run_under_rules(bundled, photo)) == []
    assert "MediaError" in next(run_under_rules(bundled, photo.with_name("gone.png")))


def test_a_space_gets_the_files_in_one_commit_and_loses_those_that_are_gone(
    project: Path, space_hub: HubServer
) -> None:
    url = push(project, files_to_push(project), SPACE)
    assert url.startswith(f"{space_hub.url}/spaces/{SPACE}/commit/")
    files = space_hub.files(f"spaces/{SPACE}")
    assert files == {name: (project / name).read_bytes() for name in files_to_push(project)}
    (project / "app.py").write_text("print('new')\n")
    push(project, ["app.py", "README.md"], SPACE)
    assert space_hub.files(f"spaces/{SPACE}").keys() == {"app.py", "README.md"}
    commits = [request for request in space_hub.requests if "/commit/" in request]
    assert len(commits) == 2


def test_a_push_that_the_hub_refuses_is_told(project: Path, space_hub: HubServer) -> None:
    space_hub.fault = "unauthorised"
    with pytest.raises(PushFailed, match=f"{SPACE} was not pushed"):
        push(project, ["README.md"], SPACE)
