"""Canaries: what the rules leave out reaches no state, no prompt, no log and no wire, in no form."""

from __future__ import annotations

import base64
import contextlib
import sqlite3
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from c2l_lsp.bench.soak import inside, places
from c2l_lsp.bench.soak.bar import Finding, Task
from c2l_lsp.bench.soak.fixtures import project

LANGUAGES = ["python", "javascript", "json", "toml", "yaml", "shellscript", "markdown"]
_PROMPT = "import os\n\n\ndef main():\n    return "
_opened: list[str] | None = None
_hooked = False


def _watch_opens() -> None:
    """An audit hook, set once and for good; it notes only while `_opened` is a list."""
    global _hooked
    if not _hooked:
        _hooked = True

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event == "open" and _opened is not None and isinstance(args[0], str | bytes):
                _opened.append(args[0] if isinstance(args[0], str) else args[0].decode("utf-8", "replace"))

        sys.addaudithook(hook)


@contextlib.contextmanager
def _recorded(task: Task) -> Iterator[tuple[list[str], list[str]]]:
    """Every text that the model's tokenizer gets, every path that is opened; and the planted fault."""
    global _opened
    from c2l_lsp.model.base import BaseModel
    from c2l_lsp.repo import content, rules
    from c2l_lsp.repo.ignore import Ignores

    texts: list[str] = []
    real = BaseModel.encode
    _watch_opens()
    opened = _opened = []

    def encode(self: BaseModel, text: str) -> list[int]:
        texts.append(text)
        return real(self, text)

    saved = Ignores._ignored, rules.file_off, rules.directory_off, content._secret
    BaseModel.encode = encode  # type: ignore[method-assign]
    if task.planted("open_filter"):
        Ignores._ignored = lambda *_, **__: False  # type: ignore[method-assign]
        rules.file_off = lambda name: False
        rules.directory_off = lambda path: path.startswith((".git", "node_modules"))
        content._secret = lambda data: False
    try:
        yield texts, opened
    finally:
        BaseModel.encode, _opened = real, None  # type: ignore[method-assign]
        Ignores._ignored, rules.file_off, rules.directory_off = saved[:3]  # type: ignore[method-assign]
        content._secret = saved[3]


def run(task: Task) -> Finding:
    """Learn a repository full of canaries, type beside them, tighten the rules; then search everything."""
    from c2l_lsp.engine.session import Session

    finding = Finding()
    root = project(task.work / "project", 5)
    planted = places.plant(root, task.work / "aside", task.count)
    tightened = "def later_ignored_zq():\n    return 'zqlaterignored00canary77'\n"
    (root / "pkg0" / "later.py").write_text(tightened)
    settings = inside.settings(files={"languages": LANGUAGES, "exclude": ["set_aside.py"]})
    with inside.state_in(task.work / "state"), _recorded(task) as (texts, opened), Session(settings) as session:
        session.open(root)
        life = session.engine.life(str(root))
        for path, text in planted.buffers.items():
            life.buffer(path, text)
        inside.drive(session, 0.3)
        session.settle(str(root))
        answers = _complete(session, root, planted)
        (root / ".c2lignore").write_text("own_ignored.py\nlater.py\n")
        life.regenerate()
        session.settle(str(root))
        finding.expect("pkg0/later.py" not in life.info().message, "a path in a message")
        learned = set(life._learner.records) if life._learner is not None else set()
        finding.expect("pkg0/later.py" not in learned, "a file that is ignored now is still learned")
        found = [event for event in session.events if "canary" in repr(event)]
        wires = repr(session.events) + repr(answers)
        ids = {name: session.engine.model.encode(name) for kind in planted.canaries.values() for name in kind}
        del texts[-len(ids) :]
    finding.expect(not found, "an event with a canary")
    _search(finding, task, planted, texts, wires, ids)
    shut = {str(path) for path in planted.shut}
    for path in sorted({path for path in opened if path in shut}):
        finding.fail(f"opened: {Path(path).name}")
    finding.expect(not [t for t in _kept_texts(task.work / "state") if "zqlater" in t], "a purged file's text is kept")
    return finding


def _complete(session: Any, root: Path, planted: places.Planted) -> list[Any]:  # noqa: ANN401
    """Ask for a completion in each excluded file, with its text before the cursor, as its editor would."""
    answers = []
    for path in [*places.EXCLUDED.values(), *(p for p in planted.buffers if p != "pkg0/unsaved.py")]:
        file = root / path
        with contextlib.suppress(OSError):
            prefix = planted.buffers.get(path) or _quietly(file)
            answers.append(session.complete(inside.question(root, path, prefix)))
    answers.append(session.complete(inside.question(root, "pkg0/m0.py", _PROMPT)))
    return answers


def _quietly(file: Path) -> str:
    """What the editor holds: read here without being noted as read by the engine."""
    global _opened
    noted, _opened = _opened, None
    try:
        return file.read_text(encoding="utf-8")
    finally:
        _opened = noted


def _search(
    finding: Finding,
    task: Task,
    planted: places.Planted,
    texts: list[str],
    wires: str,
    ids: dict[str, list[int]],
) -> None:
    state = [path.read_bytes() for path in (task.work / "state").rglob("*") if path.is_file()]
    state += [text.encode() for text in _kept_texts(task.work / "state")]
    for kind, made in planted.canaries.items():
        for name in made:
            finding.tried += 1
            forms = _forms(name, ids[name])
            finding.expect(not any(form in blob for blob in state for form in forms), f"{kind}: in the state")
            finding.expect(not any(name in text for text in texts), f"{kind}: seen by the model")
            finding.expect(name not in wires, f"{kind}: on the wire")


def _forms(name: str, ids: list[int]) -> list[bytes]:
    """A canary raw, in UTF-16, as base64 at each of three places, as hex, and as token ids of each width."""
    raw = name.encode()
    plain = [raw, name.encode("utf-16-le"), raw.hex().encode()]
    coded = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    tokens = [struct.pack(f"<{len(ids)}{width}", *ids) for width in ("H", "i", "q")] if len(ids) > 3 else []
    return plain + coded + tokens


def _kept_texts(state: Path) -> list[str]:
    """Texts in the caches, unpacked."""
    found = []
    for path in state.rglob("readings.sqlite"):
        with contextlib.closing(sqlite3.connect(path)) as db:
            found += [zlib.decompress(row[0]).decode() for row in db.execute("SELECT value FROM text")]
    return found


def excluded(task: Task) -> Finding:
    """Changes in excluded files only: state, adapter and generation stay as they are, bit for bit."""
    from c2l_lsp.engine.session import Session

    finding = Finding()
    root = project(task.work / "project", 5)
    places.plant(root, task.work / "aside", 40)
    settings = inside.settings(files={"languages": LANGUAGES, "exclude": ["set_aside.py"]})
    paths = list(places.EXCLUDED.values())
    with inside.state_in(task.work / "state"), _recorded(task), Session(settings) as session:
        session.open(root)
        before = _image(session, root)
        for number in range(task.count):
            (root / paths[number % len(paths)]).write_text(f"changed_{number} = {number}\n" * (1 + number % 3))
            if number % 4 == 3:
                session.engine.life(str(root)).regenerate()
            inside.drive(session, 0.1)
            session.settle(str(root))
            finding.tried += 1
            if not finding.expect(_image(session, root) == before, f"{paths[number % len(paths)]} changed the state"):
                before = _image(session, root)
    return finding


def _image(session: Any, root: Path) -> tuple[object, ...]:  # noqa: ANN401
    life = session.engine.life(str(root))
    state = life._learner.state.tensors
    adapter = life.live.adapter
    tensors = tuple((name, tensor.double().numpy().tobytes()) for name, tensor in sorted(state.items()))
    return life.info().generation, tensors, adapter.digest if adapter is not None else ""
