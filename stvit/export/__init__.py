"""Files that run a model without this project; ``stvit.export(model, path)`` writes one.

The package itself can be called, because ``python -m stvit.export`` and ``stvit.export(...)`` share the name.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .export import ExportReport, export_model


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> ExportReport:
        """See :func:`stvit.export.export.export_model`."""
        return export_model(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
