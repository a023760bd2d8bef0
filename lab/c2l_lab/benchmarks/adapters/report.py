"""The Markdown report of `bench adapt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from c2l_lab.benchmarks.adapters.metrics import LAST
from c2l_lab.benchmarks.stats import Row
from c2l_lsp.errors import CorpusError

HEADLINE = (
    "exact_match", "exact_match_gain", "edit_similarity_gain", f"delta_ce/prefix{LAST}", f"own_minus_mean/prefix{LAST}",
    f"top1/prefix{LAST}", f"ceiling_fraction/prefix{LAST}", "fresh_minus_stale20", "adapter_seconds", "ms_per_request",
    "prompt_tokens",
)  # fmt: skip
"""The columns of the first table."""


def number(row: Row) -> str:
    """The value of a row with its 95 % interval; "–" for NaN."""
    if row.value != row.value:
        return "–"
    digits = 1 if row.unit in ("ms", "tokens") else 4
    text = f"{row.value:.{digits}f}"
    return text if row.low is None or row.high is None else f"{text} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def markdown(rows: Sequence[Row], manifest: dict[str, Any]) -> str:
    """The headline table, the rows with a bar, and the notes on data and model."""
    methods = list(dict.fromkeys(row.method for row in rows))
    by = {(row.name, row.method): row for row in rows}
    lines = ["# Adapter benchmark", "", *_about(manifest), "", "| method | " + " | ".join(HEADLINE) + " |"]
    lines.append("|---" * (len(HEADLINE) + 1) + "|")
    for method in methods:
        cells = [number(by[name, method]) if (name, method) in by else "" for name in HEADLINE]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += [f"| {name} | not run: {why} |" for name, why in manifest.get("not_trained", {}).items()]
    lines += ["", "## Bars", "", "| row | method | value | bar | met |", "|---|---|---|---|---|"]
    for row in rows:
        if row.bar:
            holds = "–" if row.holds is None else "yes" if row.holds else "**no**"
            lines.append(f"| {row.name} | {row.method} | {number(row)} | {row.bar} | {holds} |")
    return "\n".join(lines) + "\n"


def _about(manifest: dict[str, Any]) -> list[str]:
    notes = manifest.get("notes", {})
    base = f"{manifest['model']} (`{manifest['weights'].get('base', '')}`)"
    return [
        f"Base model {base}, {len(manifest['data'])} held-out repositories. Intervals: 95 %, bootstrap over them.",
        *(f"- {key}: {value}" for key, value in notes.items()),
    ]


def save(path: Path, text: str) -> None:
    """Write a report. CorpusError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"{path} cannot be written: {error.strerror or error}.") from error
