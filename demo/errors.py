"""Tell errors to the people they are written for, on the page and in the API."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    except (RuntimeError, OSError, MemoryError, ImportError) as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        raise UserError(NO_ROOM) from error


@dataclass(frozen=True)
class Told:
    """An error for people as a value, which comes whole from one process to another."""

    error: UserError


def telling(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function return its errors for people as :class:`Told`; a generator function yields one at its end."""
    if inspect.isgeneratorfunction(function):

        def generate(*arguments: Any) -> Iterator[Any]:
            try:
                with user_errors():
                    yield from function(*arguments)
            except UserError as error:
                yield Told(error)

        return generate

    def call(*arguments: Any) -> Any:
        try:
            with user_errors():
                return function(*arguments)
        except UserError as error:
            return Told(error)

    return call


def untold(value: Any) -> Any:
    """Return a value that came from a function which is ``telling``.

    Raises:
        UserError: the function raised it.
    """
    if isinstance(value, Told):
        raise value.error
    return value


@contextmanager
def _translated() -> Iterator[None]:
    try:
        with user_errors():
            yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from error
