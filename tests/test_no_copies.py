"""No stretch of code is in the project twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = 8  # of code in a row that two places may not share


def code_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line of code: no imports, signatures, docstrings, comments or lone brackets."""
    text = path.read_text()
    tree = ast.parse(text)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        lone_string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if lone_string or isinstance(node, ast.Import | ast.ImportFrom):
            skipped.update(range(node.lineno, node.end_lineno + 1))
        if isinstance(node, ast.FunctionDef):
            skipped.update(range(node.lineno, node.body[0].lineno))
    stripped = ((number, line.split("  # ")[0].strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(n, line) for n, line in stripped if n not in skipped and len(line) > 1 and not line.startswith("#")]


def test_no_stretch_of_code_is_there_twice() -> None:
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for folder in ("stvit", "weights", "demo"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = code_lines(path)
            for start in range(len(lines) - LINES + 1):
                stretch = tuple(line for _, line in lines[start : start + LINES])
                places[stretch].append(f"{path.relative_to(ROOT)}:{lines[start][0]}")
    copies = [" and ".join(found) for found in places.values() if len(found) > 1]
    assert not copies, "\n".join(copies)
