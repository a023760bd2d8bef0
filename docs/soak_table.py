"""Puts the state of the soak bars into the page on benchmarks while mkdocs builds it; mkdocs.yml names this file.

The table is not written into the page itself: a row counts only for the code that it was measured with.
"""

from __future__ import annotations

import sys
from pathlib import Path

MARKER = "<!-- soak bars: docs/soak_table.py -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """The page with the table in place of the marker."""
    if MARKER not in markdown:
        return markdown
    root = str(Path(__file__).resolve().parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    from tests.soak.bars import table
    from tests.soak.harness import report

    return markdown.replace(MARKER, report.markdown(table.BARS, report.RESULTS))
