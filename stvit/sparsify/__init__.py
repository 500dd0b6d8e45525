"""Semantic tokens for a network that is trained already: ``stvit.sparsify(model)``; see ``docs/sparsify.md``.

The package itself can be called, because ``python -m stvit.sparsify`` and ``stvit.sparsify(...)`` share the name.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from torch import nn

from .convert import sparsify


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> nn.Module:
        """See :func:`stvit.sparsify.convert.sparsify`."""
        return sparsify(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
