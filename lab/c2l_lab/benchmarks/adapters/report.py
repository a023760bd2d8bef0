"""The adapter report: Markdown for reading beside the code, HTML in one file with its pictures in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from c2l_lab.benchmarks.adapters import plots
from c2l_lab.benchmarks.adapters.metrics import LAST
from c2l_lab.benchmarks.adapters.table import Results
from c2l_lab.benchmarks.stats import Row
from c2l_lsp.errors import CorpusError

HEADLINE = (
    "exact_match", "exact_match_gain", "edit_similarity_gain", f"delta_ce/prefix{LAST}", f"own_minus_mean/prefix{LAST}",
    f"top1/prefix{LAST}", f"ceiling_fraction/prefix{LAST}", "fresh_minus_stale20", "adapter_seconds", "ms_per_request",
    "prompt_tokens",
)  # fmt: skip
"""Columns of the first table."""

_STYLE = """body{font:14px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0;font-size:12px}td,th{border:1px solid #ccc;padding:2px 7px;text-align:right}
td:first-child,th:first-child,td:nth-child(2){text-align:left}.no{background:#fbe3e0}.yes{background:#e3f4e4}
img{max-width:100%;margin:.5em 1em .5em 0;vertical-align:top}
pre{white-space:pre-wrap;font-size:11px;background:#f5f5f5;padding:1em}"""


def number(row: Row) -> str:
    """A row's figure with its interval."""
    if row.value != row.value:
        return "–"
    digits = 1 if row.unit in ("ms", "tokens") else 4
    text = f"{row.value:.{digits}f}"
    return text if row.low is None or row.high is None else f"{text} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def markdown(rows: Sequence[Row], manifest: dict[str, Any]) -> str:
    """The headline table, the bars, and what the figures stand on."""
    methods = list(dict.fromkeys(row.method for row in rows))
    by = {(row.name, row.method): row for row in rows}
    lines = ["# The adapter table", "", *_about(manifest), "", "| method | " + " | ".join(HEADLINE) + " |"]
    lines.append("|---" * (len(HEADLINE) + 1) + "|")
    for method in methods:
        cells = [number(by[name, method]) if (name, method) in by else "" for name in HEADLINE]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += [f"| {name} | not trained: {why} |" for name, why in manifest.get("not_trained", {}).items()]
    lines += ["", "## Bars", "", "| row | method | figure | bar | holds |", "|---|---|---|---|---|"]
    for row in rows:
        if row.bar:
            holds = "–" if row.holds is None else "yes" if row.holds else "**no**"
            lines.append(f"| {row.name} | {row.method} | {number(row)} | {row.bar} | {holds} |")
    return "\n".join(lines) + "\n"


def _about(manifest: dict[str, Any]) -> list[str]:
    notes = manifest.get("notes", {})
    base = f"{manifest['model']} (`{manifest['weights'].get('base', '')}`)"
    return [
        f"Base {base}, {len(manifest['data'])} repositories; 95 % intervals from a bootstrap over repositories.",
        *(f"- {key}: {value}" for key, value in notes.items()),
    ]


def page(rows: Sequence[Row], manifest: dict[str, Any], results: Results) -> str:
    """The HTML report."""
    import json

    tracked = [m for m in results.methods if any(r.method == m and r.name.startswith("stale_ce/") for r in rows)]
    compared = [m for m in results.methods if results.of("others", m)]
    pictures = [
        plots.bars(rows, f"delta_ce/prefix{LAST}", f"Loss change at prefix {LAST}, nat/token (less is better)"),
        plots.bars(rows, "exact_match_gain", "Rest of line: exact match against base"),
        *(plots.bars(rows, f"exact_match_gain/{s}", f"… of these, {s}") for s in ("unseen", "attribute")),
        plots.bars(rows, f"own_minus_mean/prefix{LAST}", "Own adapter against the others' mean, nat/token"),
        *(plots.heat(results, method) for method in compared),
        *(plots.steps(results, method) for method in compared),
        plots.staleness(rows, tracked),
        plots.worth(rows),
    ]
    images = "".join(f'<img alt="" src="data:image/png;base64,{base64.b64encode(p).decode()}">' for p in pictures)
    about = html.escape(json.dumps(manifest, indent=1))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Adapter table</title><style>{_STYLE}</style>'
        f"<h1>The adapter table</h1><p>{'<br>'.join(html.escape(line) for line in _about(manifest))}</p>{images}"
        f"<h2>All rows</h2>{_rows(rows)}<h2>Not trained</h2><p>{_missing(manifest)}</p>"
        f"<h2>Manifest</h2><pre>{about}</pre></html>\n"
    )


def _rows(rows: Sequence[Row]) -> str:
    out = ["<table><tr><th>row<th>method<th>figure<th>unit<th>bar</tr>"]
    for row in rows:
        style = "" if row.holds is None else ' class="yes"' if row.holds else ' class="no"'
        cells = "".join(
            f"<td>{html.escape(text)}" for text in (row.name, row.method, number(row), row.unit, row.bar or "")
        )
        out.append(f"<tr{style}>{cells}</tr>")
    return "".join(out) + "</table>"


def _missing(manifest: dict[str, Any]) -> str:
    found = manifest.get("not_trained", {})
    return html.escape("; ".join(f"{name}: {why}" for name, why in found.items()) or "nothing")


def save(path: Path, text: str) -> None:
    """Write a report. CorpusError if the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"{path} cannot be written: {error.strerror or error}.") from error
