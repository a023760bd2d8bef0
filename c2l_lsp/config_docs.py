"""All settings as rows, and README's table of them: `python -m c2l_lsp.config_docs README.md`.

Writes the table between two markers; `--check` only says whether it is up to date, as the test of it does.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from c2l_lsp.config import MACHINE_ONLY, Settings

BEGIN, END = "<!-- settings: made by `python -m c2l_lsp.config_docs README.md` -->", "<!-- /settings -->"


def describe() -> list[dict[str, Any]]:
    """One row per setting: key, type, default, description, scope. The editors' tables are generated from it."""
    rows = []
    defs = msgspec.json.schema(Settings)["$defs"]

    def walk(name: str, prefix: str) -> None:
        for key, schema in defs[name]["properties"].items():
            ref = (
                schema.get("$ref", "").rsplit("/", 1)[-1]
                or (schema.get("allOf") or [{}])[0].get("$ref", "").rsplit("/")[-1]
            )
            if ref in defs:
                walk(ref, f"{prefix}{key}.")
                continue
            scope = "machine" if prefix.split(".")[0] in MACHINE_ONLY else "resource"
            rows.append({"key": f"c2l.{prefix}{key}", "scope": scope, **schema})

    walk("Settings", "")
    defaults = msgspec.to_builtins(Settings())
    for row in rows:
        row["default"] = functools.reduce(lambda values, part: values[part], row["key"].split(".")[1:], defaults)
    return rows


def table() -> str:
    """Every setting as a row of Markdown; machine scope is marked."""
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    for row in describe():
        mark = " ᴹ" if row["scope"] == "machine" else ""
        rows.append(f"| `{row['key']}`{mark} | {_default(row)} | {row['description']}{_range(row)} |")
    return "\n".join(rows)


def renewed(text: str) -> str:
    """`text` with the table between its markers renewed. ValueError if it has no markers."""
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise ValueError(f"there is no {BEGIN} … {END}")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def _default(row: dict[str, Any]) -> str:
    return f"`{json.dumps(row['default'], ensure_ascii=False)}`" if row["default"] != "" else "empty"


def _range(row: dict[str, Any]) -> str:
    if "enum" in row:
        values = [row["default"], *(value for value in row["enum"] if value != row["default"])]
        return f" One of {', '.join(f'`{value}`' for value in values)}."
    low, high = row.get("minimum"), row.get("maximum")
    return f" {low:g}–{high:.7g}." if low is not None and high is not None else ""


def main(arguments: list[str]) -> int:
    """Renew the file, or check it; the exit code."""
    check = "--check" in arguments
    (name,) = [argument for argument in arguments if argument != "--check"]
    file = Path(name)
    before = file.read_text(encoding="utf-8")
    after = renewed(before)
    if check:
        return 0 if before == after else 1
    file.write_text(after, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
