"""Interleaved comparisons, printed and saved as JSON.

``python -m stvit.measure MODEL BASELINE [BASELINE ...]`` measures the first model against the others;
``--engines eager openvino`` every model under every engine, each against the last model under the same engine;
``python -m stvit.measure --suite paper`` every method of the papers against its full-token model, ``--suite table4``
STViT and all methods beside it that have public code, ``--suite aims`` what this project wants to reach and whether it
does. ``--load N`` measures under engines once more while N other processes keep a core busy each.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models import is_model

from stvit.errors import UserError
from stvit.export.graph import first_line
from stvit.predict.device import available_cores, best_precision, keep_freed_memory
from stvit.predict.engines import ENGINES
from stvit.predict.load import PRECISIONS
from stvit.shell import from_zero, positive, unknown_model, unwritable

from . import suite
from .aims import aims_table, outcomes
from .compare import Comparison, SpeedUp, compare
from .engines import EngineComparison, compare_engines, engines_table
from .models import named
from .processes import CannotMeasure

SIZE = (224, 224)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        measure(options)
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; what was measured and printed before stands.", file=sys.stderr)
        return 130
    return 0


def measure(options: argparse.Namespace) -> None:
    """Measure what the options name; prints the figures and saves them.

    Raises:
        CannotMeasure: a model cannot be measured as asked.
    """
    device = torch.device(options.device)
    precision = PRECISIONS.get(options.precision, best_precision(device))
    torch.manual_seed(0)
    kept = {"freed_memory_kept": keep_freed_memory()}
    how = {"rounds": options.rounds, "progress": show_progress}
    if options.engines:
        how |= {"batch_sizes": sorted({1, options.batch_size}), "load": options.load}
        measure_engines(options, device, precision, how, kept)
    elif options.suite:
        figures: dict[str, Any] = {}
        how["batch_size"] = options.batch_size
        for name, comparison in suite.run_suite(options.groups, device, precision, **how):
            print("\n" + suite.table(name, comparison), flush=True)
            figures[name] = suite.as_json(comparison) | kept
            save(options.output, figures)
    else:
        models = named(options.models, tuple(options.input_size), options.backbones, device, precision)
        try:
            comparison = compare(models, input_shape=(3, *options.input_size), batch_size=options.batch_size, **how)
        except RuntimeError as error:  # PyTorch's, above all for want of memory
            raise CannotMeasure(f"Eager fails: {first_line(error)}", "Try a smaller batch.") from error
        print("\n" + report(comparison))
        save(options.output, as_json(comparison) | kept)


def measure_engines(
    options: argparse.Namespace, device: torch.device, precision: torch.dtype, how: dict[str, Any], kept: dict[str, Any]
) -> None:
    """Named models, or group after group of a suite: each is printed when it is measured, and saved after those before.
    A suite's file has :class:`stvit.measure.engines.EngineComparison` by group, with published figures and cautions
    beside it; groups that it has from before and that are not measured again stay."""
    if not options.suite:
        build = partial(named, options.models, tuple(options.input_size), options.backbones, device, precision)
        measured = compare_engines(build, options.engines, input_shape=(3, *options.input_size), **how)
        print("\n" + engines_table(measured))
        save(options.output, asdict(measured) | kept)
        return
    found: dict[str, EngineComparison] = {}
    figures = groups_in(options.output)
    where = device, precision
    groups = suite.run_suite_under_engines(options.suite, options.groups, options.engines, *where, **how)
    for name, contestants, measured in groups:
        known = suite.known_of(contestants)
        cautions = [f"{label}: {text}" for label, text in known["cautions"].items()]
        print("\n".join([f"\n{name}: {engines_table(measured)}", *cautions]), flush=True)
        found[name], figures[name] = measured, asdict(measured) | known | kept
        save(options.output, figures)
    if options.suite == "aims":
        print("\n" + aims_table(outcomes(found)))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stvit.measure", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="the model, then its baselines (names in timm)")
    parser.add_argument("--backbones", action="store_true", help="of detectors and segmenters, the backbones alone")
    size = {"nargs": 2, "type": positive, "metavar": ("HEIGHT", "WIDTH")}
    parser.add_argument("--input-size", **size, help="pixels (default: {} {})".format(*SIZE))
    parser.add_argument("--suite", choices=suite.SUITES, help="measure a comparison of methods instead of named models")
    parser.add_argument("--groups", nargs="+", choices=list(suite.groups()), help="parts of the suite (default: all)")
    parser.add_argument("--batch-size", type=positive, default=32, help="for throughput; latency is of batch 1")
    parser.add_argument("--rounds", type=positive, default=30, help="timed rounds (default: 30)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="auto", choices=["auto", *PRECISIONS], help="default: the fastest here")
    engines = parser.add_mutually_exclusive_group()
    engines.add_argument("--engine", dest="engines", nargs=1, choices=ENGINES, help="measure under this one")
    engines.add_argument("--engines", nargs="+", choices=ENGINES, help="measure under each of these, in turns")
    parser.add_argument("--load", type=from_zero, default=0, metavar="N", help="and with N cores busy beside it")
    parser.add_argument("--output", type=Path, help="also save the figures as JSON in this file")
    options = parser.parse_args(arguments)
    if options.engines and len(set(options.engines)) < len(options.engines):
        parser.error("name each engine once")
    if options.groups and not options.suite:
        parser.error("groups are parts of a suite: add --suite")
    if not options.engines and (options.load or options.suite in ("table4", "aims")):
        options.engines = ["eager"]
    if options.suite:
        known = list(suite.groups_of(options.suite))
        options.groups = options.groups or known
        if unknown := sorted(set(options.groups) - set(known)):
            parser.error(f"--suite {options.suite} has no {', '.join(unknown)}; choose among {', '.join(known)}")
    if options.suite and (options.backbones or options.input_size):
        parser.error("a suite has models and sizes of its own: leave out --backbones and --input-size")
    options.input_size = options.input_size or SIZE
    if options.suite and options.models:
        parser.error("name models or a suite, not both")
    if not options.suite and len(options.models) < 2:
        parser.error("name a model and at least one baseline")
    if len(set(options.models)) < len(options.models):
        parser.error("name each model once")
    if unknown := [name for name in options.models if not is_model(name)]:
        parser.error("; ".join(map(unknown_model, unknown)))
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available")
    if options.load > (cores := available_cores()):
        parser.error(f"--load {options.load} keeps more cores busy than there are: {cores} at most")
    if options.output and (problem := unwritable(options.output)):
        parser.error(f"--output {problem}")
    return options


def show_progress(phase: str, done: int, total: int) -> None:
    print(f"\r{phase} {done}/{total} ", end="", file=sys.stderr, flush=True)


def groups_in(output: Path | None) -> dict[str, Any]:
    """The groups of a suite that a file has, nothing where it has something else."""
    try:
        content = json.loads(output.read_text(encoding="utf-8")) if output else {}
    except (OSError, ValueError):
        return {}
    known = {name for one in suite.SUITES for name in suite.groups_of(one)}
    return content if isinstance(content, dict) and content.keys() <= known else {}


def save(output: Path | None, figures: dict[str, Any]) -> None:
    """Write the figures to the file, if one was named."""
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def speed_ups(comparison: Comparison) -> dict[str, dict[str, SpeedUp]]:
    """By baseline and phase: the first model against every other."""
    first, *baselines = comparison.costs
    return {
        baseline: {phase: comparison.speed_up(first, baseline, phase) for phase in comparison.rounds}
        for baseline in baselines
    }


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data: summaries and ratios, without the raw times."""
    data = asdict(comparison)
    del data["rounds"]
    ratios = {
        baseline: {phase: asdict(ratio) for phase, ratio in by_phase.items()}
        for baseline, by_phase in speed_ups(comparison).items()
    }
    return data | {"speed_up_of_the_first_against": ratios}


def report(comparison: Comparison) -> str:
    """The comparison as text."""
    lines = [
        f"{comparison.device}, {comparison.precision}, input {'x'.join(map(str, comparison.input_shape))}, "
        f"batch {comparison.batch_size}; " + ", ".join(f"{k} {v}" for k, v in comparison.versions.items()),
        "",
        f"{'model':34} {'GMACs':>7} {'paper':>7} {'M par.':>7} {'ms, batch 1 (IQR)':>26} "
        f"{'images/s':>9} {'peak MiB':>9}",
    ]
    for name, cost in comparison.costs.items():
        spread = f"{cost.latency.median_ms:.1f} ({cost.latency.q1_ms:.1f} to {cost.latency.q3_ms:.1f})"
        lines.append(
            f"{name:34} {cost.macs / 1e9:7.3f} {cost.macs_as_published / 1e9:7.3f} {cost.parameters / 1e6:7.2f} "
            f"{spread:>26} {cost.images_per_second:9.1f} {cost.peak_memory_bytes / 2**20:9.0f}"
        )
    first = next(iter(comparison.costs))
    for baseline, ratios in speed_ups(comparison).items():
        allowed = ratios["latency"].allowed_by_macs
        lines += ["", f"{first} against {baseline} (multiply-adds allow {allowed:.2f}x)"]
        lines.append("  latency, batch 1: " + describe(ratios["latency"]))
        lines.append(f"  throughput, batch {comparison.batch_size}: " + describe(ratios["throughput"]))
    return "\n".join(lines)


def describe(ratio: SpeedUp) -> str:
    q1, median, q3 = ratio.measured
    verdict = "faster" if median > 1 else "slower"
    return (
        f"{median:.2f}x, {verdict} (IQR {q1:.2f} to {q3:.2f}), {ratio.quotient:.2f} of what multiply-adds allow; "
        f"the roofline allows {ratio.allowed_by_roofline:.2f}x"
    )


if __name__ == "__main__":
    sys.exit(main())
