"""The terminal output: one line a step, completions in colour, a progress bar, and the table at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from c2l_lab.demo.places import Place

OnMessage = Callable[[str, Any], None]


@dataclass(frozen=True)
class Suggestion:
    """The candidates that the server suggests at a place, and the length of the prompt behind them in tokens."""

    texts: tuple[str, ...]
    prompt_tokens: int = 0

    @property
    def text(self) -> str:
        """The first line of the first candidate; "" without one."""
        return self.texts[0].split("\n", 1)[0] if self.texts else ""


@dataclass
class Step:
    """One row of the table. `seconds` is the time that the client measured, None for a step that is no action."""

    name: str
    seconds: float | None
    outcome: str


@dataclass
class Display:
    """Prints to `console` and collects the steps."""

    console: Console
    steps: list[Step] = field(default_factory=list)
    memorable: list[str] = field(default_factory=list)
    """What a visitor should remember, printed at the end."""

    def step(self, name: str, seconds: float | None, outcome: str) -> None:
        """Report a finished step."""
        self.steps.append(Step(name, None if seconds is None else round(seconds, 3), outcome))
        self.console.print(f"[bold]{name:<24}[/bold] {duration(seconds):>8}  {escape(outcome)}")

    def completions(self, place: Place, *suggestions: tuple[str, Suggestion], expected: str) -> None:
        """Print the line at a place with each suggestion and with the expected text; equal ones are green."""
        self.console.print(f"    [dim]{escape(place.path)}:{place.line + 1}[/dim]")
        rows = [(name, found.text or "(nothing)") for name, found in suggestions] + [(expected, place.expected)]
        before = escape(place.before.strip())
        for name, text in rows:
            style = "green" if text.strip() == place.expected.strip() else "yellow"
            self.console.print(f"    [dim]{name:>14}[/dim]  {before}[{style}]{escape(text)}[/{style}]")

    @contextlib.contextmanager
    def progress_bar(self) -> Iterator[OnMessage]:
        """A bar that follows the server's progress reports, on a terminal. Yields a handler for its messages."""
        columns = (TextColumn("    {task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bars:
            task = bars.add_task("", total=100, visible=False)

            def on_message(method: str, params: Any) -> None:  # noqa: ANN401 - parameters of any method
                value = params.get("value") if method == "$/progress" else None
                if isinstance(value, dict):
                    text = str(value.get("message") or value.get("title") or "")
                    bars.update(
                        task, description=escape(text), completed=value.get("percentage") or 0, visible=bool(text)
                    )

            yield on_message

    def table(self) -> Table:
        """The steps so far."""
        table = Table("step", "time", "result", title="All steps", title_justify="left")
        table.columns[1].justify = "right"
        for step in self.steps:
            table.add_row(step.name, duration(step.seconds), escape(step.outcome))
        return table

    def plain(self) -> list[dict[str, Any]]:
        """The steps so far, for JSON."""
        return [asdict(step) for step in self.steps]


def duration(seconds: float | None) -> str:
    """A time in ms or s; "" for None."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"
