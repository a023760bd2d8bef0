"""Canaries in excluded files, and secrets in others, reach no state, prompt, log or message in any encoding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak.bars.security import secrets_live
from tests.soak.harness import canary_search, in_process, secret_places
from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.file_opens import Opens
from tests.soak.harness.sources import project
from tests.soak.planted import leaks

_PROMPT = "import os\n\n\ndef main():\n    return "
MOST_LEARNED = 0.05
"""Share of the secrets of `c2l_lab.benchmarks.secrets.forms` that may reach the model, the state or a message."""

LATER = {"pkg0/later.py": "zqlaterignored00canary77", "m/deep/later.py": "later_renamed_canary_zq"}
"""Files that are embedded first and then excluded by a new line in an ignore file."""


@contextlib.contextmanager
def recorded(task: Task) -> Iterator[list[str]]:
    """Records every text that is tokenised within the block, and plants the fault."""
    from c2l_lsp.model.lm.base import BaseModel

    texts: list[str] = []
    real = BaseModel.encode

    def encode(self: BaseModel, text: str) -> list[int]:
        texts.append(text)
        return real(self, text)

    with leaks.planted(task.plant):
        BaseModel.encode = encode  # type: ignore[method-assign]
        try:
            yield texts
        finally:
            BaseModel.encode = real  # type: ignore[method-assign]


def settings() -> Any:
    """The settings for the repository with canaries."""
    return in_process.settings(files={"languages": secret_places.LANGUAGES, "exclude": ["set_aside.py"]})


def run(task: Task) -> Finding:
    """Index a repository with canaries, complete in it, tighten the rules; then search everything."""
    from c2l_lsp.engine.session import Session

    finding = Finding()
    root = project(task.work / "project", 5)
    planted = secret_places.plant(root, task.work / "aside", task.count)
    for path, name in LATER.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"def later_ignored_zq():\n    return '{name}'\n")
    buffers = {path: _text(root / path) for path in secret_places.EXCLUDED.values()} | planted.buffers
    opens = Opens(planted.shut)
    with in_process.state_in(task.work / "state"), recorded(task) as texts, Session(settings()) as session:
        session.open(root)
        workspace = session.engine.workspace(str(root))
        for path, text in planted.buffers.items():
            workspace.set_buffer(path, text)
        in_process.drive(session, 0.3)
        session.run_until_idle(str(root))
        answers = _complete(session, root, buffers)
        before = list(canary_search.stored(task.work / "state"))
        _tighten(finding, session, root)
        model, wires = session.engine.model, repr(session.events) + repr(answers)
        seen = "\0".join(texts)
        forms = {
            n: canary_search.forms(n, model.encode, model.decode) for names in planted.canaries.values() for n in names
        }
        secrets = {
            n: canary_search.forms(n, model.encode, model.decode) for parts in planted.secrets.values() for n in parts
        }
        later = {path: canary_search.forms(name, model.encode, model.decode) for path, name in LATER.items()}
    for file in sorted(opens.seen()):
        finding.fail(f"opened: {file.name}")
    opens.close()
    after = list(canary_search.stored(task.work / "state"))
    blobs = before + after
    for kind, names in planted.canaries.items():
        for name in names:
            finding.tried += 1
            finding.expect(
                not (at := canary_search.places(blobs, forms[name])), f"{kind}: in the state ({', '.join(at[:3])})"
            )
            finding.expect(name not in seen, f"{kind}: seen by the model")
            finding.expect(name not in wires, f"{kind}: in a message")
    finding.tried += len(secrets)
    learned = {part for part, wanted in secrets.items() if canary_search.places(blobs, wanted)}
    learned |= {part for part in secrets if part in seen or part in wires}
    kinds = sorted(kind for kind, parts in planted.secrets.items() if learned.intersection(parts))
    finding.expect(
        len(learned) <= MOST_LEARNED * len(secrets),
        f"secrets of known forms are learned: {len(learned)} of {len(secrets)} ({', '.join(kinds[:5])})",
    )
    ordinary = [number for number in range(len(planted.secrets)) if f"ORDINARY_{number} = {number}" in seen]
    finding.expect(len(ordinary) == len(planted.secrets), "a file with a secret was not embedded")
    for path, wanted in later.items():
        finding.expect(canary_search.places(before, wanted), f"{path} was never embedded, so purging was not tested")
        finding.expect(
            not (at := canary_search.places(after, wanted)), f"purged {path}: still stored ({', '.join(at[:4])})"
        )
    if not task.plant or task.plant in secrets_live.PLANTS:
        secrets_live.run(task, finding, root, planted, buffers)
    finding.note = "file opens are detected only on Linux" if opens.blind else ""
    return finding


def _tighten(finding: Finding, session: Any, root: Path) -> None:
    """Exclude files that were embedded: they must be removed, and no message may name them."""
    (root / ".c2lignore").write_text("own_ignored.py\nlater.py\n")
    workspace = session.engine.workspace(str(root))
    workspace.regenerate()
    session.run_until_idle(str(root))
    embedded = set(workspace._learner.records) if workspace._learner is not None else set()
    for path in LATER:
        finding.expect(path not in workspace.info().message, "a path in a message")
        finding.expect(path not in embedded, f"{path} is ignored now and still embedded")


def _complete(session: Any, root: Path, buffers: dict[str, str]) -> list[Any]:
    """Request a completion in each excluded file, with its text before the cursor, as an editor would."""
    requests = {path: text for path, text in buffers.items() if path != "pkg0/unsaved.py"}
    answers = [session.complete(in_process.completion_request(root, path, text)) for path, text in requests.items()]
    answers.append(session.complete(in_process.completion_request(root, "pkg0/m0.py", _PROMPT)))
    return answers


def _text(file: Path) -> str:
    """The text of a file, read before opens are watched."""
    return file.read_text(encoding="utf-8")


def excluded(task: Task) -> Finding:
    """Changes in excluded files only: state, adapter and generation stay bit-identical."""
    from c2l_lsp.engine.session import Session

    finding = Finding()
    root = project(task.work / "project", 5)
    secret_places.plant(root, task.work / "aside", 40)
    paths = list(secret_places.EXCLUDED.values())
    with in_process.state_in(task.work / "state"), recorded(task), Session(settings()) as session:
        session.open(root)
        before = _image(session, root)
        for number in range(task.count):
            (root / paths[number % len(paths)]).write_text(f"changed_{number} = {number}\n" * (1 + number % 3))
            if number % 4 == 3:
                session.engine.workspace(str(root)).regenerate()
            in_process.drive(session, 0.1)
            session.run_until_idle(str(root))
            finding.tried += 1
            if not finding.expect(_image(session, root) == before, f"{paths[number % len(paths)]} changed the state"):
                before = _image(session, root)
    return finding


def _image(session: Any, root: Path) -> tuple[object, ...]:
    workspace = session.engine.workspace(str(root))
    state = workspace._learner.state.tensors
    adapter = workspace.live.adapter
    tensors = tuple((name, tensor.double().numpy().tobytes()) for name, tensor in sorted(state.items()))
    return workspace.info().generation, tensors, adapter.digest if adapter is not None else ""
