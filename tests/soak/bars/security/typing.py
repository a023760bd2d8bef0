"""A token is typed into an unsaved buffer between two slices of a generation: it is not learned."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak.bars.security.secrets import recorded
from tests.soak.harness import canary_search, in_process, secret_places
from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.sources import project

FILES = 3
SETTLE_S = 120.0
TOKEN = "TOKEN = 'ghp_{token}'\n"
CLEAN = "def typed_{number}(value):\n    return value\n\n\n" * 4


def run(task: Task) -> Finding:
    """Each round types a clean text into all buffers, lets some slices run, types a token instead, and runs the rest.

    The number of slices grows with the rounds, so that the token comes after each slice of a generation.
    """
    from c2l_lsp.engine.session import Session

    finding, rng = Finding(), random.Random(0)
    root = project(task.work / "project", FILES)
    canaries, slices = [secret_places.canary(rng) for _ in range(task.count)], 1
    settings = in_process.settings()
    with in_process.state_in(task.work / "state"), recorded(task) as texts, Session(settings) as session:
        session.open(root)
        for number, canary in enumerate(canaries):
            workspace: Any = session.engine.workspace(str(root))
            _type(workspace, CLEAN.format(number=number))
            if number == 0:
                slices = sum(1 for _ in _slices(session, root))
                _type(workspace, CLEAN.format(number="again"))
            after = number % (slices + 1)
            for _, _ in zip(range(after), _slices(session, root), strict=False):
                pass
            _type(workspace, TOKEN.format(token=(canary * 2)[:36]))
            for _ in _slices(session, root):
                pass
            finding.tried += 1
            finding.expect(not _seen(canary, texts), f"round {number}, after {after} slices: seen by the model")
            texts.clear()
            if task.plant and finding.failed:
                break
        model = session.engine.model
        wanted = {canary: canary_search.forms(canary, model.encode, model.decode) for canary in canaries}
    blobs = list(canary_search.stored(task.work / "state"))
    for canary, forms in wanted.items():
        finding.expect(not (at := canary_search.places(blobs, forms)), f"in the state ({', '.join(at[:3])}): {canary}")
    finding.expect(blobs, "nothing was stored, so nothing was searched")
    finding.figures["slices"] = (float(slices), "in a generation")
    return finding


def _type(workspace: Any, text: str) -> None:
    for number in range(FILES):
        workspace.set_buffer(f"pkg0/m{number}.py", text + f"FILE = {number}\n")


def _seen(canary: str, texts: list[str]) -> bool:
    return any(canary in text for text in texts)


def _slices(session: Any, root: Path) -> Iterator[None]:
    """Run the due work of the folder, one slice at a time, until it is up to date. TimeoutError after SETTLE_S."""
    workspace, until = session.engine.workspace(str(root)), time.monotonic() + SETTLE_S
    while True:
        due = workspace.due_in(time.monotonic())
        if due is None or (due > 1.0 and not workspace.pending):
            return
        if time.monotonic() > until:
            raise TimeoutError(f"the folder was not up to date after {SETTLE_S:.0f} s")
        if due > 0:
            time.sleep(min(due, 0.01))
            continue
        session.engine.idle_step()
        yield
