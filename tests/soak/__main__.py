"""`python -m tests.soak`: the long form of the fault bars. tests/soak/test_bars.py is the short form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from c2l_lab.benchmarks import stats

from c2l_lsp.errors import C2LError
from tests.soak.bars import table
from tests.soak.harness import report
from tests.soak.harness.run import Choice, soak

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Result file. Bars it already holds for this code are not run again.")
    ] = None,
    bars: Annotated[str, typer.Option("--bars", help="Run only these bars, separated by commas.")] = "",
    short: Annotated[bool, typer.Option("--short", help="Use the small counts of the test suite.")] = False,
    count: Annotated[int, typer.Option(min=0, help="Use this count for every bar; 0: each bar's own.")] = 0,
    plant: Annotated[
        str, typer.Option("--plant", help="Plant this fault; the bar must then fail. --list shows the names.")
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Run again what the result file already holds.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print which bars hold, of today's code only, and run nothing.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the bars and their planted faults.")] = False,
) -> None:
    """Run every bar of reliability and security. Takes hours at full counts; exit code 1 if a bar fails."""
    chosen = table.select(bars)
    if listed:
        for bar in chosen:
            typer.echo(
                f"{bar.name}: {bar.full} {bar.unit} (short: {bar.short}); planted faults: {', '.join(bar.plants)}"
            )
            typer.echo(f"    {bar.fault} → {bar.passes}")
        return
    if show:
        for line in report.lines(chosen, json_out or report.RESULTS):
            typer.echo(f"{line.bar.name}: {line.state}" + (f" ({line.day})" if line.day else ""))
        return
    rows = soak(chosen, Choice(short, count, plant, again), json_out, lambda line: typer.echo(line, err=True))
    stats.show(rows, "soak" + (f", planted fault: {plant}" if plant else ""))
    raise typer.Exit(0 if all(row.holds is not False for row in rows) else 1)


def main() -> None:
    """Run the command; an expected error is one line on stderr and exit code 2."""
    try:
        app()
    except C2LError as error:
        typer.echo(f"soak: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
