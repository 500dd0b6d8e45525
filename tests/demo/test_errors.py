"""Errors for people on their way to the page and the API."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import gradio as gr
import pytest
import torch

from demo.errors import told
from demo.model_cache import NO_ROOM
from stvit.errors import UserError


@told
def answer(error: Exception | None, word: str = "done") -> str:
    if error is not None:
        raise error
    return word


@told
def answers(error: Exception | None, word: str = "done") -> Iterator[str]:
    yield "first"
    if error is not None:
        raise error
    yield word


@pytest.mark.parametrize("run", [answer, lambda error: list(answers(error))])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("It is broken.", "Mend it."), "It is broken. Mend it."),
        (torch.OutOfMemoryError("CUDA out of memory."), NO_ROOM),
        (MemoryError(), NO_ROOM),
    ],
)
def test_an_error_for_people_reaches_them_as_it_is_and_without_a_stack_trace(run, error: Exception, words: str) -> None:
    with pytest.raises(gr.Error) as told_error:
        run(error)
    assert told_error.value.message == words and not told_error.value.print_exception


@pytest.mark.parametrize("run", [answer, lambda error: list(answers(error))])
@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x"), gr.Error("The quota is used up.")])
def test_a_defect_stays_what_it_is(run, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        run(error)
    assert raised.value is error


def test_what_a_handler_returns_and_takes_is_unchanged() -> None:
    assert answer(None, "right") == "right" and list(answers(None)) == ["first", "done"]
    assert list(inspect.signature(answer).parameters) == ["error", "word"]
    assert inspect.isgeneratorfunction(answers) and not inspect.isgeneratorfunction(answer)


def test_a_generator_that_is_left_early_is_closed() -> None:
    closed = []

    @told
    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    running = endless()
    next(running)
    running.close()
    assert closed == [True]
