"""Whether the models that the page begins with are in memory: ``GET /ready``."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from demo.registry import ModelSpec, Registry
from stvit.errors import UserError

ASK_AGAIN_S = 5


class Models(Protocol):
    """What keeps models, as ``demo.model_cache.ModelCache`` does."""

    def get(self, spec: ModelSpec, *, retry: bool = False) -> object: ...

    def is_ready(self, spec: ModelSpec) -> bool: ...


class Readiness:
    """Tells whoever sends visitors here when the first of them need not wait for models. Those are loaded when somebody
    asks: a page for one person downloads nothing before it is used.

    Args:
        models: keeps them.
        specs: that the page begins with.
    """

    def __init__(self, models: Models, specs: Sequence[ModelSpec]) -> None:
        self._models, self._specs = models, specs
        self._loading = threading.Lock()

    def route(self) -> Route:
        """Return the route: 200, or 503 with a sentence."""

        async def answer(request: Request) -> Response:
            missing = [spec.label for spec in self._specs if not self._models.is_ready(spec)]
            if not missing:
                return JSONResponse({"status": "ready"})
            threading.Thread(target=self._load, name="first models", daemon=True).start()
            words = f"Not in memory yet, being loaded: {', '.join(missing)}."
            return JSONResponse({"error": words, "detail": words}, 503, {"Retry-After": str(ASK_AGAIN_S)})

        return Route("/ready", answer)

    def _load(self) -> None:
        if not self._loading.acquire(blocking=False):
            return
        try:
            for spec in self._specs:
                with suppress(UserError):  # told as not ready, and tried again when somebody asks again
                    self._models.get(spec, retry=True)
        finally:
            self._loading.release()


def first_pair(registry: Registry) -> list[ModelSpec]:
    """List the classifier that the page begins with, and the model beside it."""
    first = registry.first("classify")
    return [spec for spec in (first, registry.counterpart(first)) if spec is not None]
