"""The command `c2l-lab bench secrets`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

REPOSITORIES = Path(__file__).with_name("repositories.txt")


def bench_secrets(
    mirror: Annotated[Path, typer.Option("--mirror", help="Git repositories, as owner+name or owner/name.")],
    repositories: Annotated[Path, typer.Option("--list", help="Repositories whose literals count.")] = REPOSITORIES,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write rows and manifest to this file.")] = None,
) -> None:
    """Measure the screen for secrets: secrets that are learned, and ordinary string literals that are lost."""
    import datetime as dt
    import os
    import platform

    from c2l_lab.benchmarks import stats
    from c2l_lab.benchmarks.secrets import forms, measure
    from c2l_lab.corpus import sources
    from c2l_lsp import __version__

    started = dt.datetime.now(dt.timezone.utc)
    rows = [*measure.learned("dev", forms.dev()), *measure.learned("held-out", forms.held_out())]
    found, commits = measure.lost(sources.read_list(repositories), mirror)
    rows += found
    stats.show(rows, "the screen for secrets")
    if json_out is not None:
        about = {
            "code": __version__,
            "data": commits,
            "seeds": list(measure.SEEDS),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "started": started.isoformat(timespec="seconds"),
            "seconds": round((dt.datetime.now(dt.timezone.utc) - started).total_seconds(), 1),
        }
        stats.write(json_out, about, rows)
