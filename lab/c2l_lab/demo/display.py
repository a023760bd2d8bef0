"""What the person at the terminal sees: steps with their times, completions in colour, bars, and the last table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from c2l_lab.clients.editor import Shown
from c2l_lab.demo.places import Place


@dataclass
class Step:
    """One row: what was done, how long it took as the editor saw it, what came of it."""

    name: str
    seconds: float
    outcome: str


@dataclass
class Stage:
    """Prints to `console`; `steps` is what remains."""

    console: Console
    steps: list[Step] = field(default_factory=list)

    def done(self, name: str, seconds: float, outcome: str) -> None:
        """A step has come to its end."""
        self.steps.append(Step(name, round(seconds, 3), outcome))
        self.console.print(f"[bold]{name:<22}[/bold] {spoken(seconds):>8}  {escape(outcome)}")

    def show(self, place: Place, truth: str, *shown: tuple[str, Shown]) -> None:
        """The line at a place as completions would make it, above what is right there; what agrees is green."""
        self.console.print(f"    [dim]{escape(place.path)}:{place.line + 1}[/dim]")
        rows = [*((name, found.text or "(nothing)") for name, found in shown), (truth, place.expected)]
        before = escape(place.before.strip())
        for name, text in rows:
            style = "green" if text.strip() == place.expected.strip() else "yellow"
            self.console.print(f"    [dim]{name:>8}[/dim]  {before}[{style}]{escape(text)}[/{style}]")

    @contextlib.contextmanager
    def bars(self) -> Iterator[Callable[[str, int | None], None]]:
        """A bar while the server reports progress, on a terminal; else nothing but the steps."""
        columns = (TextColumn("    {task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bars:
            task = bars.add_task("", total=100, visible=False)

            def heard(message: str, percentage: int | None) -> None:
                bars.update(task, description=escape(message), completed=percentage or 0, visible=bool(message))

            yield heard

    def table(self) -> Table:
        """The rows so far."""
        table = Table("step", "time", "outcome", title="The main job, step by step", title_justify="left")
        table.columns[1].justify = "right"
        for step in self.steps:
            table.add_row(step.name, spoken(step.seconds), escape(step.outcome))
        return table

    def plain(self) -> list[dict[str, Any]]:
        """The rows for JSON."""
        return [asdict(step) for step in self.steps]


def spoken(seconds: float) -> str:
    """A time in ms or s."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"
