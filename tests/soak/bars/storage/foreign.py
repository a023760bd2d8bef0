"""State directories that another program wrote: the engine sets them aside, says so, learns again and watches."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from tests.soak.harness import in_process
from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.sources import project

LIMIT_S = 8.0
"""For one case: our time limit for one use of the database, and the time to learn three files again."""

_FILES = 3


def readings(task: Task) -> Finding:
    """`count` databases: with views, triggers and other tables, with rows and embeddings that are none, with junk."""
    from tests.support import foreign_state

    return _run(task, list(foreign_state.databases()), rebuild=True)


def odd_files(task: Task) -> Finding:
    """`count` times a FIFO, a directory or a link in the place of a file."""
    from tests.support import foreign_state

    return _run(task, list(foreign_state.odd_files()), rebuild=False)


def _run(task: Task, cases: list[object], *, rebuild: bool) -> Finding:
    from c2l_lsp.config import state_root
    from c2l_lsp.engine.session import Session
    from c2l_lsp.engine.storage.store import folder_key
    from tests.support.damaged_folder import Damaged
    from tests.support.foreign_state import Case

    finding = Finding()
    root = project(task.work / "project", _FILES)
    with in_process.state_in(task.work / "states"), Session(in_process.settings()) as session:
        session.open(root)
        session.engine.close_folder(str(root))
        sound = task.work / "sound"
        shutil.copytree(state_root() / folder_key(root), sound)
        damaged = Damaged(session, root, sound, limit_s=LIMIT_S, adapter=False)
        with _planted(task.plant):
            for number in range(task.count):
                case = cases[number * len(cases) // task.count if task.count < len(cases) else number % len(cases)]
                assert isinstance(case, Case)
                damaged.limit_s = LIMIT_S * task.patience
                finding.tried += 1
                for fault in damaged.faults(case, rebuild=rebuild or "readings" in case.name):
                    finding.fail(f"{case.name}: {fault}")
            before = session.engine.workspace(str(root)).info().generation
            damaged.change_is_seen()
            finding.expect(session.engine.workspace(str(root)).info().generation > before, "a change was not seen")
    return finding


@contextlib.contextmanager
def _planted(plant: str) -> Iterator[None]:
    """Within the block: any schema is accepted and queries may take long; embeddings are not checked; links count."""
    from c2l_lsp import regular_files
    from c2l_lsp.engine.storage import database
    from c2l_lsp.model.hypernet.gradient_memory import GradientMemory

    schema, limit = database._require_schema, database.TIME_LIMIT_S
    embedding, state = GradientMemory.check_embedding, GradientMemory.check
    regular, no_follow = regular_files._require_regular, regular_files.NO_FOLLOW
    if plant == "any_schema":
        database._require_schema, database.TIME_LIMIT_S = (lambda db: None), 30.0
    if plant == "believing":
        GradientMemory.check_embedding = lambda self, key, embedding: None  # type: ignore[method-assign]
        GradientMemory.check = lambda self, state: None  # type: ignore[method-assign]
    if plant == "follows":
        regular_files._require_regular, regular_files.NO_FOLLOW = (lambda status, path: None), 0
    try:
        yield
    finally:
        database._require_schema, database.TIME_LIMIT_S = schema, limit
        GradientMemory.check_embedding, GradientMemory.check = embedding, state  # type: ignore[method-assign]
        regular_files._require_regular, regular_files.NO_FOLLOW = regular, no_follow
