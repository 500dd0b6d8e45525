"""Tell errors to the people they are written for, on the page and in the API."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import gradio as gr

from demo.model_cache import NO_ROOM, is_out_of_memory
from stvit.errors import UserError

Handler = TypeVar("Handler", bound=Callable[..., Any])


def told(handler: Handler) -> Handler:
    """Let the errors that a handler or endpoint raises for people reach them as they are, without a stack trace.

    Args:
        handler: function, generator function or method.

    Raises (when called):
        gr.Error: where ``handler`` raises a :class:`UserError`, or the device runs out of memory.
    """
    if inspect.isgeneratorfunction(handler):

        @wraps(handler)
        def generate(*arguments: Any, **named: Any) -> Iterator[Any]:
            with _translated():
                yield from handler(*arguments, **named)

        return generate

    @wraps(handler)
    def call(*arguments: Any, **named: Any) -> Any:
        with _translated():
            return handler(*arguments, **named)

    return call


@contextmanager
def user_errors() -> Iterator[None]:
    """Let running out of memory be a :class:`UserError` too."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        raise UserError(NO_ROOM) from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        with user_errors():
            yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error
