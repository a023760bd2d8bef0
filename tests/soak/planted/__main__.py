"""A server or an engine with planted faults: `python -m tests.soak.planted FAULTS server|engine`.

FAULTS are names joined by "+", some with a number (`oom:3`). A server starts its engine with the same faults.
"""

from __future__ import annotations

import sys

from tests.soak.planted import engine, probes, server
from tests.support.commands import module_command

PLACES = {"server": (server, probes), "engine": (engine, probes)}


def main(faults: str, what: str) -> int:
    """Plant the faults of this kind of process and run it."""
    for name in filter(None, faults.split("+")):
        name, _, number = name.partition(":")
        for module in PLACES[what]:
            if found := getattr(module, name, None):
                found(number)
    if what == "engine":
        from c2l_lsp.engine import worker

        return worker.main()
    from c2l_lsp.server import app

    return app.serve(module_command("tests.soak.planted", faults, "engine"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
