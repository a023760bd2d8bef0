"""What importing the server's entry point loads. tests/test_architecture.py checks torch and who imports pygls."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_entry_point_loads_no_pygls() -> None:
    """`initialize` is answered before pygls is imported, which takes half a second on a small machine."""
    code = "import sys, c2l_lsp.server.app; print([m for m in sys.modules if m.startswith(('pygls', 'lsprotocol'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
