"""An engine in this process, for bars that inspect its state."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from c2l_lsp.config import Settings, load_user, merge
from c2l_lsp.engine import wire
from c2l_lsp.engine.session import Session


@contextlib.contextmanager
def state_in(folder: Path) -> Iterator[None]:
    """Use this state folder within the block."""
    before = os.environ.get("C2L_STATE_DIR")
    os.environ["C2L_STATE_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["C2L_STATE_DIR"]
        else:
            os.environ["C2L_STATE_DIR"] = before


def settings(**groups: dict[str, Any]) -> Settings:
    """The user's settings with short delays and a small sample, and with these groups on top."""
    quick = {"adapter": {"updateDelayMs": 20, "maxDelayMs": 200, "maxIndexKb": 256}}
    made, errors = merge(load_user()[0], quick, source="soak", machine=True)
    made, more = merge(made, groups, source="soak", machine=True)
    for error in (*errors, *more):
        raise error
    return made


def drive(session: Session, seconds: float) -> None:
    """Run the engine's due work for some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        due = session.engine.due_in()
        if due is not None and due <= 0:
            session.engine.idle_step()
        else:
            time.sleep(0.005)


def completion_request(root: Path | None, path: str, prefix: str, **more: Any) -> wire.Complete:
    """A completion request with a long time limit."""
    plain: dict[str, Any] = {
        "folder": str(root) if root is not None else "",
        "path": path,
        "language": "python",
        "prefix": prefix,
        "suffix": "",
        "max_new_tokens": 6,
        "max_latency_ms": 60_000,
        **more,
    }
    return wire.Complete(**plain)
