"""Measure what replicas bring, and what the loss of one costs: ``python -m demo.serve.measure``.

Programs classify one picture again and again: in this process, and with each number of replicas on this machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from demo.service.folder import as_a_server


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m demo.serve.measure", description=__doc__.partition("\n")[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2], metavar="N", help="default 1 2")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--model", default="garments_stvit_deit")
    parser.add_argument("--baseline", default="garments_deit")
    chosen = parser.parse_args(arguments)
    with as_a_server():  # as the page does: how threads wait is set before PyTorch is loaded
        measure(chosen.replicas, chosen.seconds, (chosen.model, chosen.baseline))


def measure(counts: Sequence[int], seconds: float, names: tuple[str, str]) -> None:
    """Print what each number of replicas gives, beside the page's own process right before."""
    from demo.model_specs import build_registry
    from demo.page.examples import load_examples
    from demo.predictors import predictors_of_process
    from demo.runtime import Runtime
    from demo.serve.remote import RemoteRuntime
    from demo.serve.speed import Ask, loss, speed
    from demo.serve.start import deployed

    registry = build_registry()
    pair, picture = [registry.find(name) for name in names], load_examples()[0].path

    def asking(runtime: Runtime) -> Ask:
        return lambda: runtime.classify_file(picture, *pair)

    own = asking(Runtime(predictors_of_process(), registry))
    for count in counts:
        here = speed(own, seconds)
        with deployed(registry, count) as deployments:
            ask = asking(RemoteRuntime(deployments, registry))
            there = speed(ask, seconds)
            lost = loss(deployments, count, ask)
        share = there.per_s / here.per_s
        losing = f"slowest request {lost.slowest_s:.1f} s, {lost.told} without an answer"
        print(f"replicas          {count}")
        print(f"answers a second  {there.per_s:.1f}, {share:.2f} of this process alone ({here.per_s:.1f})")
        print(f"a single request  {there.single_s * 1e3:.0f} ms, in this process {here.single_s * 1e3:.0f} ms")
        print(f"one was killed    {losing}, another replica after {lost.recovered_s:.0f} s", flush=True)


if __name__ == "__main__":
    main()
