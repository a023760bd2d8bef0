"""A server or an engine with a fault planted: `python -m c2l_lsp.bench.soak.plant FAULTS server|engine`.

FAULTS are names joined by "+", some with a number (`oom:3`). A server hands them on to its engine.
"""

from __future__ import annotations

import sys

from c2l_lsp.bench.soak import inner, plants_engine, plants_server

PLACES = {"server": (plants_server, inner), "engine": (plants_engine, inner)}


def main(faults: str, what: str) -> int:
    """Plant what belongs here and run."""
    for name in filter(None, faults.split("+")):
        name, _, number = name.partition(":")
        for module in PLACES[what]:
            if found := getattr(module, name, None):
                found(number)
    if what == "engine":
        from c2l_lsp.engine import worker

        return worker.main()
    from c2l_lsp.server import app

    return app.serve([sys.executable, "-m", "c2l_lsp.bench.soak.plant", faults, "engine"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
