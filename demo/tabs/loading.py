"""Models on their way into memory, told as notices; and why some of them have no weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import gradio as gr

from demo.charts.bars import notice
from demo.memory import OutOfMemory
from demo.model_cache import LoadedModel, ModelStore
from demo.registry import ModelSpec

POLL_S = 0.2


def load_models(store: ModelStore, specs: Sequence[ModelSpec], retry: bool = False) -> Iterator[str]:
    """Bring models into memory; a notice on the progress every now and then, so that no download falls into a timed
    request.

    Raises:
        gr.Error: the device has no room for one of them.
    """
    for spec in specs:
        if store.is_ready(spec):
            continue
        done: list[tuple[int, int | None]] = []
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(store.get, spec, lambda *progress, seen=done: seen.append(progress), retry=retry)
            while not loading.done():
                yield _loading_notice(spec.label, *(done[-1] if done else (0, None)))
                wait([loading], POLL_S)
            try:
                loading.result()
            except OutOfMemory as error:
                raise gr.Error(str(error), print_exception=False) from error


def without_weights(store: ModelStore, specs: Sequence[ModelSpec]) -> tuple[list[LoadedModel], list[LoadedModel]]:
    """The models that have no weights: those that never had any, and those whose weights could not be had."""
    entries = [entry for entry in map(store.get, dict.fromkeys(specs)) if entry.problem]
    return (
        [entry for entry in entries if not entry.spec.has_weights],
        [entry for entry in entries if entry.spec.has_weights],
    )


def missing_weights(store: ModelStore, spec: ModelSpec, what: str, still: str) -> str:
    """A warning where a model's weights could not be had; nothing otherwise.

    Args:
        spec: a model that has weights.
        what: is not shown for want of them, e.g. ``"detections"``.
        still: what can be done, and what is shown all the same.
    """
    _, missing = without_weights(store, [spec])
    if not missing:
        return ""
    reason = f"No {what} from {labels(missing)}: {missing[0].problem}"
    return notice(reason, "warning", f"{missing[0].next_step} {still}")


def labels(entries: Sequence[LoadedModel]) -> str:
    """What people call the models, in one phrase."""
    return " and ".join(entry.spec.label for entry in entries)


def _loading_notice(label: str, done: int, total: int | None) -> str:
    if not done:
        return notice(f"Loading {label}…", "busy")
    megabytes = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
    return notice(f"Downloading the weights of {label}: {megabytes}", "busy", progress=done / total if total else None)
