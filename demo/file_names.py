"""Names of the files that leave the page and the API: models and what is in the file, never a visitor's words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from demo.registry import ModelSpec

LONGEST = 100  # characters before the ending
UNSAFE = re.compile(r"(?:[^a-z0-9.]|\.(?!\d))+")  # a dot is safe before a digit


def file_stem(specs: Sequence[ModelSpec], what: str) -> str:
    """Name a file without its ending, e.g. ``stvit-deit-small-16-tokens-classify``.

    Args:
        specs: models whose results are in it; several are joined by "beside".
        what: is in it, in words.

    Returns:
        Lower-case letters, digits, dots and hyphens, ``LONGEST`` characters at most.
    """
    models, said = "-beside-".join(map(_model, specs)), _safe(what)
    return f"{models[: LONGEST - len(said) - 1].strip('-.')}-{said}"


def _model(spec: ModelSpec) -> str:
    _, *details = spec.label.split(", ")
    return _safe(" ".join(dict.fromkeys([spec.method.name, spec.size, *details])))


def _safe(words: str) -> str:
    return UNSAFE.sub("-", words.lower()).strip("-.")
