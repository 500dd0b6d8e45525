"""What README.md and docs/*.md tell people to type works; the files that they name are there.

Python blocks run whole, in a folder with made-up weights and beside a local Hub. Commands of the project are read by
their own parsers; those of ``RUN`` also run. A block that is no program can say so in a line before it:
``<!-- not run -->``.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest

from tests.hub_server import HubServer
from tests.narrow_models import NARROW_DETECTOR, detector_checkpoint
from tests.published_weights import MODEL, add_released_weights, authors_container

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run -->\n+)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"`((?:assets|demo|docs|stvit|tests|weights)/[\w./-]+)`")
PLACEHOLDERS = {"NAME": MODEL, "MODEL": MODEL, "BASELINE": MODEL}
RUN = {"python -m weights list", "python -m weights verify"}
NOT_OURS = {"accelerate", "apt-get", "cd", "curl", "docker", "export", "git", "pip", "ray", "source"}

STAND_INS = f"""
import numpy as np, stvit, torch
images = torch.zeros(2, 3, 224, 224)
image = np.zeros((240, 320, 3), np.uint8)
file = "detector.pth"
full_size = stvit.create_model
def create_model(name, *arguments, **options):
    narrow = {NARROW_DETECTOR!r} if name.endswith("_cascade_mask_rcnn") else {{}}
    return full_size(name, *arguments, **{{**narrow, **options}})
stvit.create_model = create_model
"""


def blocks(*languages: str) -> list[pytest.param]:
    found = []
    for text in (text for text in TEXTS if text.stem != "api"):  # its examples ask a server: tests/demo/api
        for number, (mark, language, code) in enumerate(BLOCK.findall(text.read_text()), start=1):
            if language in languages and not mark:
                found.append(pytest.param(code, id=f"{text.stem}-{number}"))
    return found


def commands(block: str) -> Iterator[list[str]]:
    """The words of each command; of ``a|b`` and of `` | `` between commands of one program, every alternative."""
    for line in re.sub(r"\\\n\s*", " ", block).splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if not words:
            continue
        if "|" in words:  # python -m weights list | pull NAME
            program, rest, choices = words[:3], words[3:], []
            while "|" in rest:
                at = rest.index("|")
                choices.append(rest[:at])
                rest = rest[at + 1 :]
            yield from (program + choice for choice in [*choices, rest])
        else:
            yield from map(list, product(*(word.split("|") for word in words)))


def program_of(module: str) -> ModuleType:
    """What ``python -m module`` runs."""
    found = import_module(module)
    return import_module(f"{module}.__main__") if hasattr(found, "__path__") else found


def parse_only(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program's own parser read the arguments; it ends with status 2 where they do not fit."""

    class Parsed(Exception):
        pass

    def parse_args(parser: argparse.ArgumentParser, given: list[str] | None = None, namespace: object = None) -> None:
        _, unknown = parser.parse_known_args(given, namespace)
        if unknown:
            parser.error(f"unrecognized arguments: {unknown}")
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with pytest.raises(Parsed):
        program_of(module).main([PLACEHOLDERS.get(word, word) for word in arguments])


def check_options(module: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command of which ``...`` leaves something out: its help knows every option that is named."""
    with pytest.raises(SystemExit):
        program_of(module).main([*arguments[:1], "--help"] if arguments[0].isalpha() else ["--help"])
    told = capsys.readouterr().out
    assert {word for word in arguments if word.startswith("--")} <= set(re.findall(r"--[\w-]+", told))


def check_pip(arguments: list[str]) -> None:
    """The files and extras that pip is given are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in arguments:
        asked = re.fullmatch(r"(?:\.|stvit-studio.*?)\[(.+)\]", word)
        assert asked is None or set(asked[1].split(",")) <= extras.keys()
        assert not word.endswith(".txt") or (ROOT / word).is_file()


@pytest.mark.parametrize("block", blocks("sh", "bash", "shell", "console"))
def test_commands_fit_their_parsers(
    block: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(block):
        line = " ".join(words)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # HF_HOME=/data python ...
            words.pop(0)
        if words[:2] == ["accelerate", "launch"] and "-m" in words:
            words = ["python", *words[words.index("-m") :]]
        match words:
            case ["make", *more]:
                subprocess.run(["make", "--dry-run", *more], cwd=ROOT, check=True, capture_output=True)
            case ["pip", "install", *more] | ["python", "-m", "pip", "install", *more]:
                check_pip(more)
            case ["python", "-m", module, *arguments] if "..." in arguments:
                check_options(module, arguments, capsys)
            case ["python", "-m", module, *arguments]:
                with monkeypatch.context() as patch:
                    if not set(arguments) & {"-h", "--help"}:
                        parse_only(module, arguments, patch)
            case ["python", script, *_]:
                assert (ROOT / script).is_file(), line
            case [program, *_]:
                assert program in NOT_OURS, f"teach this test what to do with: {line}"


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with the files that the texts name, and the variables that lead to a local Hub."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "STViT-R-Swin-S.pth").write_bytes(authors_container())
    (folder / "detector.pth").write_bytes(detector_checkpoint())
    with HubServer() as hub:
        add_released_weights(hub)
        home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hub"), "PYTHONPATH": str(ROOT)}
        yield folder, {**os.environ, **home}


def run(arguments: list[str], surroundings: tuple[Path, dict[str, str]]) -> str:
    folder, variables = surroundings
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python", "py"))
def test_python_runs(block: str, surroundings: tuple[Path, dict[str, str]]) -> None:
    run(["-c", STAND_INS + block], surroundings)


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(RUN))
def test_commands_run(command: str, surroundings: tuple[Path, dict[str, str]]) -> None:
    assert run(command.split()[1:], surroundings)


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_files_that_are_named_are_there(text: Path) -> None:
    words = text.read_text()
    missing = [link for link in LINK.findall(words) if not (text.parent / link).exists()]
    missing += [path for path in PATH.findall(words) if not (ROOT / path).exists()]
    assert not missing


def test_the_readme_shows_how_to_start() -> None:
    given = [words for block in blocks("sh", "bash") for words in commands(block.values[0])]
    assert ["make", "demo"] in given and ["make", "test"] in given
    assert blocks("python")
