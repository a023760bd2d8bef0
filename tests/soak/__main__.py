"""The command `python -m tests.soak`: run soak bars and write their rows. Importing this module loads no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from c2l_lsp.errors import C2LError
from tests.soak.bars import table


def soak_command(
    json_out: Annotated[
        Path | None, typer.Option("--json", help="File for the rows. Rows that it already holds are not run again.")
    ] = None,
    bars: Annotated[str, typer.Option("--bars", help="Names of bars, separated by commas. Default: all.")] = "",
    short: Annotated[bool, typer.Option("--short", help="Use the small counts of the test suite.")] = False,
    count: Annotated[int, typer.Option(min=0, help="Use this count for every bar. 0: each bar's own.")] = 0,
    plant: Annotated[str, typer.Option("--plant", help="Plant this fault. The bar must fail then.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Run bars again that the file already holds.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Print the bars and their planted faults, and exit.")] = False,
) -> None:
    """Run the bars of reliability and security. Exit code 1 if one fails. Full counts take hours."""
    chosen = table.select(bars)
    if listed:
        for bar in chosen:
            typer.echo(
                f"{bar.name}: {bar.full} {bar.unit} (short: {bar.short}); planted faults: {', '.join(bar.plants)}"
            )
            typer.echo(f"    {bar.fault} → {bar.passes}")
        return
    from c2l_lab.benchmarks import stats

    from tests.soak.harness.run import Choice, soak

    rows = soak(chosen, Choice(short, count, plant, again), json_out, lambda line: typer.echo(line, err=True))
    stats.show(rows, "soak" + (f", planted: {plant}" if plant else ""))
    raise typer.Exit(0 if all(row.holds is not False for row in rows) else 1)


if __name__ == "__main__":
    try:
        typer.run(soak_command)
    except C2LError as error:
        typer.echo(f"soak: {error}", err=True)
        sys.exit(2)
