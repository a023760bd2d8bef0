"""`make licences`: check the licence of every installed package against a list of permissive ones.

Exit code 1 if a licence is not on the list, or if a direct dependency is not installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


PERMISSIVE = re.compile(
    r"apache|\bmit\b|\bbsd\b|0bsd|isc|psf|python software foundation|unlicense|zlib|cc0|mpl|mozilla|hpnd|cnri|blueoak",
    re.IGNORECASE,
)
FORBIDDEN = re.compile(r"\bgpl|agpl|lgpl|general public|sspl|busl|proprietary|commercial", re.IGNORECASE)
KNOWN = {"torch": "BSD-3-Clause", "nvidia": "NVIDIA's own licence; CUDA builds of torch depend on these packages"}
"""Licences that were looked up because the package's metadata does not name them. Keys are prefixes of names."""


def needed() -> set[str]:
    """Return the normalised names of the direct dependencies in pyproject.toml."""
    plain = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return {re.split(r"[<>=~!; \[]", line)[0].lower().replace("_", "-") for line in plain}


def refused(rows: list[dict[str, str]]) -> list[str]:
    """Return one sentence for each package whose licence is not permissive."""
    found = []
    for row in rows:
        name, licence = row["Name"].lower().replace("_", "-"), row["License"]
        if any(name.startswith(known) for known in KNOWN):
            continue
        if FORBIDDEN.search(licence) and not re.search(r"\bor\b", licence, re.IGNORECASE):
            found.append(f"{row['Name']} {row['Version']}: {licence}")
        elif not PERMISSIVE.search(licence):
            found.append(
                f"{row['Name']} {row['Version']}: {licence or 'no licence'}; look the licence up and add it to KNOWN"
            )
    return found


def main() -> int:
    """Check every installed package except this project's own two."""
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--format=json",
        "--from=mixed",
        "--ignore-packages",
        "c2l-lsp",
        "c2l-lab",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    missing = needed() - {row["Name"].lower().replace("_", "-") for row in rows} - {"tomli"}
    found = refused(rows) + [f"{name} is not installed, so its licence was not checked" for name in sorted(missing)]
    for sentence in found:
        print(sentence, file=sys.stderr)
    print(f"licences: {len(rows)} packages checked, {len(found)} refused")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
