"""Serve the page from this process, with its models in replicas of Ray Serve, here or on more machines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from demo.service.folder import as_a_server
from stvit.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.serve", description=__doc__)
    parser.add_argument("--replicas", type=int, default=1, metavar="N", help="that classify, default 1")
    parser.add_argument(
        "--address", help="of a cluster that this machine belongs to, HOST:PORT or auto; by default one is started here"
    )
    options = parser.parse_args(arguments)
    if options.replicas < 1:
        parser.error("--replicas: give 1 or more")
    try:
        with as_a_server():
            from demo.model_specs import build_registry
            from demo.page.first_models import beginning
            from demo.server import serve

            try:
                from demo.serve.remote import RemoteRuntime
                from demo.serve.start import deployed
            except ModuleNotFoundError as error:
                raise UserError(f"{error.name} is not installed.", "pip install -r requirements-serve.txt") from error

            registry = beginning(build_registry())
            with deployed(registry, options.replicas, options.address) as deployments:
                serve(RemoteRuntime(deployments, registry))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
