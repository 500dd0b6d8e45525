"""Check that Spaces can run this project, and push it to one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.model_specs import build_registry
from demo.page.examples import EXAMPLES
from demo.registry import Registry
from demo.space.check import problems, run_under_rules
from demo.space.push import files_to_push, push
from stvit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``check`` or ``push``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.space", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="front matter, files, sizes, and a picture under the rules of ZeroGPU")
    pushing = commands.add_parser("push", help="check, then make the Space or bring it up to date")
    pushing.add_argument("space", metavar="OWNER/NAME")
    pushing.add_argument("--private", action="store_true", help="of a new Space: for its owner alone")
    options = parser.parse_args(arguments)
    try:
        files, registry = files_to_push(ROOT), build_registry()
        picture = sorted(EXAMPLES.glob("*.jpg"))[0]
        bundled = Registry(spec for spec in registry if spec.bundled)  # nothing is downloaded for a check
        found = [*problems(ROOT, files, registry), *run_under_rules(bundled, picture)]
        for problem in found:
            print(problem)
        if found:
            return 1
        print(f"{len(files)} files, nothing wrong with them.")
        if options.command == "push":
            print(push(ROOT, files, options.space, private=options.private))
        return 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
