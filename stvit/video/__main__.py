"""Annotate a clip: ``python -m stvit.video IN OUT --task classify|clusters|detect|action``

Weights are the published ones, or a file's; without any (``--random-weights``) the model predicts nothing, but the
regions of its tokens, its speed and its cost are shown. A model that was trained with this project is named by its
card, ``--record NAME.json``. With ``--baseline`` both models run side by side, each at its real pace; that of a
detector is its backbone's. A clip model (``action``) also answers for the whole clip: the mean over its windows, or
with ``--views`` the papers' views.
"""

from __future__ import annotations

import sys
from threading import Event

from stvit.errors import UserError, needs_extra
from stvit.predict.device import compute_in_one_place, keep_freed_memory

with needs_extra("video"):
    import av

    from .arguments import VIEWS, build_models, parse
    from .pipeline import process
    from .tasks import AnnotateTask, SideBySideTask
    from .types import STAGES, Limits, Model, Progress


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments, __doc__)
    if options.device == "cpu":
        compute_in_one_place()
    stop = Event()
    try:
        limits = Limits(max_bytes=options.max_megabytes * 2**20, max_seconds=options.max_seconds)
        models = build_models(options)
        task = AnnotateTask(models[0]) if len(models) == 1 else SideBySideTask(*models)
        for progress in process(
            options.source, options.target, task, records=options.records, limits=limits, cancel=stop
        ):
            report(progress)
        if options.views:
            report_views(models, progress, options.views, limits)
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except (OSError, av.FFmpegError) as error:
        print(
            f"\nThe new clip could not be written ({error}). See that there is room on the disk, and that nothing else "
            "changes its folder.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        stop.set()
        print("\nStopped; nothing is left of the new clip.", file=sys.stderr)
        return 130
    if isinstance(task, AnnotateTask):
        print("Frames by engine: " + ", ".join(f"{name} {n}" for name, n in task.engines.items()), file=sys.stderr)
    print(f"\nSaved {options.target}.", file=sys.stderr)
    return 0


def report_views(models: list[Model], progress: Progress, views: str, limits: Limits) -> None:
    """Print the classes of the whole clip by each model."""
    clips, crops = VIEWS[views]
    for model in models:
        print(f"{model.label}, {clips} x {crops} views of the whole clip:")
        for name, probability in model.classify_views(progress.info, progress.frames, clips, crops, limits).ranking():
            print(f"  {100 * probability:5.1f} %  {name}")


def report(progress: Progress) -> None:
    """Write one line on the terminal, over and over; at the end what each stage took."""
    part = "" if progress.part is None else f" of {100 * progress.part:.0f} %"
    left = "" if progress.eta_s is None or progress.done else f", {progress.eta_s:.0f} s left"
    line = f"{progress.frames} frames{part}, {progress.frames_per_second:.1f} frames/s{left}"
    if not progress.frames:
        line = "preparing the first frames"
    print(f"\r{line:<70}", end="", file=sys.stderr, flush=True)
    if progress.done:
        busy = ", ".join(f"{stage} {progress.busy_s.get(stage, 0.0):.1f}" for stage in STAGES)
        print(f"\nSeconds at work, in parallel: {busy}. {progress.note}", file=sys.stderr)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
