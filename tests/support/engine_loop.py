"""Work of an in-process engine, as its main loop does it between requests."""

from __future__ import annotations

import time
from collections.abc import Callable

from c2l_lsp.engine.session import Session


def run_until(session: Session, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Run idle steps until `condition()` is true. Fails after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {timeout_s:.0f} s"
        due = session.engine.due_in()
        if due is not None and due <= 0:
            session.engine.idle_step()
        else:
            time.sleep(0.005)
