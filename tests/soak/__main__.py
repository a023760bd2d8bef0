"""The command `c2l-lsp bench soak`. Importing this module loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tests.soak.bars import table


def bench_soak(
    json_out: Annotated[
        Path | None, typer.Option("--json", help="File for the rows; one that is there is gone on with.")
    ] = None,
    bars: Annotated[str, typer.Option("--bars", help="Some bars only, separated by commas.")] = "",
    short: Annotated[bool, typer.Option("--short", help="The small counts of the test suite.")] = False,
    count: Annotated[int, typer.Option(min=0, help="This count for every bar; 0 is each one's own.")] = 0,
    plant: Annotated[
        str, typer.Option("--plant", help="Plant this fault: the bar must fail then. See --list for the names.")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Measure again what stands in the file.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Print the bars and their planted faults, and end.")] = False,
) -> None:
    """Every bar of reliability and security; exit code 1 if one does not hold. Hours at full counts."""
    chosen = table.select(bars)
    if listed:
        for bar in chosen:
            typer.echo(f"{bar.name}: {bar.full} {bar.unit} (short: {bar.short}); plants: {', '.join(bar.plants)}")
            typer.echo(f"    {bar.fault} → {bar.passes}")
        return
    from c2l_lab.benchmarks import stats

    from tests.soak.harness.run import Choice, soak

    rows = soak(chosen, Choice(short, count, plant, again), json_out, lambda line: typer.echo(line, err=True))
    stats.show(rows, "soak" + (f", planted: {plant}" if plant else ""))
    raise typer.Exit(0 if all(row.holds is not False for row in rows) else 1)
