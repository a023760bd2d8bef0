"""`make mutation`: mutation tests of storage and framing. Exit code 1 if more than a fifth of the mutants survive.

mutmut changes one operator, constant or argument at a time and runs the tests that reach it. A mutant that no test
reaches, or that was not tried, counts as alive. The figures and the names of living mutants go to build/mutation.json;
`mutmut show NAME` prints one as a diff. The files are those of `only_mutate` in pyproject.toml.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PARTS = {
    "framing": ("c2l_lsp/server/transport/stdio.py",),
    "storage": (
        "c2l_lsp/engine/storage/store.py",
        "c2l_lsp/engine/storage/cache.py",
        "c2l_lsp/engine/storage/state_lock.py",
    ),
}
LEAST = 0.8
"""Share of mutants that the tests of each part must kill."""
KILLED = {1, 3, -24, 24, 36, 152, 255}
"""mutmut's exit codes for tests that failed, crashed or ran out of time."""


def main() -> int:
    """Run mutmut, write the report, and return the exit code."""
    ran = subprocess.run([sys.executable, "-m", "mutmut", "run", *sys.argv[1:]], check=False)
    report: dict[str, dict[str, object]] = {}
    for part, files in PARTS.items():
        codes: dict[str, int | None] = {}
        for file in files:
            meta = Path("mutants") / f"{file}.meta"
            if not meta.is_file():
                print(f"{file}: mutmut made no mutants (exit code {ran.returncode})", file=sys.stderr)
                return 1
            codes |= json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        report[part] = count(codes)
        print("{0}: {killed} of {mutants} killed ({share:.1%}), {untried} not tried".format(part, **report[part]))
    Path("build").mkdir(exist_ok=True)
    Path("build/mutation.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(float(str(one["share"])) >= LEAST for one in report.values()) else 1


def count(codes: dict[str, int | None]) -> dict[str, object]:
    """Return the figures of one part from each mutant's exit code; None stands for a mutant that was not tried."""
    killed = sum(code in KILLED for code in codes.values())
    return {
        "mutants": len(codes),
        "untried": sum(code is None for code in codes.values()),
        "killed": killed,
        "share": killed / max(len(codes), 1),
        "alive": sorted(name for name, code in codes.items() if code not in KILLED),
    }


if __name__ == "__main__":
    sys.exit(main())
