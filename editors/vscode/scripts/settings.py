"""Writes the settings into package.json and README.md, from the server's own definitions. `--check` only compares.

Run with a Python that has c2l_lsp installed: `python editors/vscode/scripts/settings.py`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
sys.path.append(str(HERE.parents[1] / "docs"))
import settings_table  # noqa: E402 - a script of docs/, in no package

BEGIN, END = "<!-- settings: generated -->", "<!-- /settings -->"
TITLES = {
    "": "General",
    "completion": "Completion",
    "context": "Context",
    "adapter": "Adapter",
    "files": "Files",
    "model": "Model",
    "server": "Server",
    "remote": "Remote",
}
_COPIED = ("type", "enum", "items", "additionalProperties", "minimum", "maximum", "pattern", "default")
_ORDER = {
    "trigger": ("automatic", "manual"),
    "multiline": ("auto", "always", "never"),
    "hypernetwork": ("auto", "memory", "evo", "static", "none"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "showNotifications": ("off", "onError", "onWarning", "always"),
    "server": ("off", "messages", "verbose"),
}
"""How choices are listed; the server tells them sorted."""


def rows() -> list[dict[str, Any]]:
    """The server's rows, those of one section together."""
    return sorted(settings_table.describe(), key=lambda row: list(TITLES).index(section(row["key"])))


def section(key: str) -> str:
    """The section a setting is shown in; single settings share one."""
    group = key.split(".")[1]
    return group if group in TITLES else ""


def configuration() -> list[dict[str, Any]]:
    """`contributes.configuration`."""
    sections: dict[str, dict[str, Any]] = {}
    for order, row in enumerate(rows()):
        name = section(row["key"])
        made = sections.setdefault(name, {"title": TITLES[name], "properties": {}})
        shown = {key: row[key] for key in _COPIED if key in row}
        if "enum" in shown:
            wanted = _ORDER.get(row["key"].rsplit(".", 1)[1], ())
            shown |= {"type": "string", "enum": sorted(shown["enum"], key=lambda one: _at(wanted, one))}
        made["properties"][row["key"]] = {
            **shown,
            "description": row["description"],
            "scope": row["scope"],
            "order": order,
        }
    return list(sections.values())


def _at(wanted: tuple[str, ...], value: str) -> tuple[int, str]:
    return (wanted.index(value) if value in wanted else len(wanted), value)


def manifest(text: str) -> str:
    """package.json with the settings of now."""
    values = json.loads(text)
    values["contributes"]["configuration"] = configuration()
    restricted = [row["key"] for row in rows() if row["scope"] == "machine"]
    values["capabilities"]["untrustedWorkspaces"]["restrictedConfigurations"] = restricted
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def readme(text: str) -> str:
    """README.md with the table of now."""
    table = ["| setting | default | what it does |", "|---|---|---|"]
    for row in rows():
        default = json.dumps(row["default"], ensure_ascii=False)
        described = row["description"].replace("|", "\\|")
        table.append(f"| `{row['key']}` | `{default}` | {described} |")
    before, rest = text.split(BEGIN)
    return "\n".join([before + BEGIN, *table, END + rest.split(END)[1]])


def main() -> int:
    """Exit code: 1 if `--check` finds something stale."""
    stale = []
    for name, make in (("package.json", manifest), ("README.md", readme)):
        path = HERE / name
        text = path.read_text(encoding="utf-8")
        if (made := make(text)) != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(made, encoding="utf-8")
    print(f"{', '.join(stale) or 'nothing'} {'is stale' if '--check' in sys.argv else 'was written'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
