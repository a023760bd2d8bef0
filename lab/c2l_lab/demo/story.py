"""The steps of the demo, in their order: what the editor does, what it waits for, and what comes of it in words."""

from __future__ import annotations

import difflib
import re
import time
from dataclasses import dataclass
from pathlib import Path

from c2l_lab.clients.editor import Editor, Shown
from c2l_lab.demo import places
from c2l_lab.demo.display import Stage, spoken
from c2l_lab.demo.places import Edit, Place
from c2l_lab.demo.scratch import Copy
from c2l_lab.demo.second_start import SecondStart
from c2l_lsp.config import load_user
from c2l_lsp.errors import EngineError
from c2l_lsp.server.transport.protocol import AdapterChange, Method, State

INDEX_WITHIN_S = 900.0
UPDATE_WITHIN_S = 120.0
_LOAD_WITHIN_S = 180.0
_REST_S = 6
_PLACES = 12
_KINDS = ("import", "call", "call begun")
"""The places that ask for the new name, as `places.plan_edit` makes them."""
_PLACES_WITHIN_S = 25.0


@dataclass
class Story:
    """Runs the steps on a copy; `environment` is what the server's process gets beside the user's own."""

    copy: Copy
    stage: Stage
    environment: dict[str, str]

    async def run(self) -> None:
        """From the first message to the last. EngineError when a step does not come to its end."""
        parsed = places.parse(self.copy.root, places.sample(self.copy.python))
        edit = places.plan_edit(self.copy.root, parsed, self.copy.python)
        with self.stage.bars() as progress:
            editor = Editor(self.copy.root, progress)
            try:
                await self._start(editor)
                await self._index(editor)
                await self._with_and_without(editor, places.call_places(parsed, _PLACES))
                before = await self._ask_name(editor, edit)
                followed = await self._edit(editor, edit)
                await self._know(editor, edit, before)
            finally:
                began = time.perf_counter()
                await editor.close()
            self.stage.done("shut down", time.perf_counter() - began, "server and engine ended")
            await self._again(edit, followed)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _start(self, editor: Editor) -> None:
        began = time.perf_counter()
        await editor.start(self.environment)
        self.stage.done("initialize", time.perf_counter() - began, "the server answers; the engine process starts")
        ready = await editor.until(lambda: _settled(editor), _LOAD_WITHIN_S)
        status = editor.status
        if not ready or status is None or status.state is State.FAILED:
            raise EngineError(status.message if status is not None else "The engine did not start in time.")
        self.stage.done("load the model", time.perf_counter() - began, f"{status.model} in the engine process")

    async def _index(self, editor: Editor) -> None:
        began = time.perf_counter()
        if not await editor.until(lambda: editor.changes, INDEX_WITHIN_S):
            raise EngineError(_last(editor, f"The folder was not learned within {INDEX_WITHIN_S:.0f} s."))
        change = editor.changes[-1]
        adapter = change.adapter
        kept = f"; {adapter.message}" if adapter.message else ""
        outcome = f"generation {change.generation} from {adapter.files} files ({_stages(change)}){kept}"
        self.stage.done("index, first adapter", time.perf_counter() - began, outcome)

    async def _with_and_without(self, editor: Editor, asked: list[Place]) -> None:
        """The first place where the adapter changes the text, and the count over all places that were tried."""
        began = time.perf_counter()
        tried: list[tuple[Place, Shown, Shown]] = []
        for place in asked:
            if time.perf_counter() - began > _PLACES_WITHIN_S:
                break
            tried.append((place, *await self._pair(editor, place)))
        if not tried:
            self.stage.done("with and without", 0.0, "no assignment or return statement to try it at")
            return
        differ = [row for row in tried if row[1].text != row[2].text]
        for place, bare, adapted in differ[:1] or tried[:1]:
            self.stage.show(place, "the file", ("without", bare), ("with", adapted))
        closer = sum(_agreement(row[0], row[2]) > _agreement(row[0], row[1]) for row in tried)
        farther = sum(_agreement(row[0], row[2]) < _agreement(row[0], row[1]) for row in tried)
        same = all(row[1].prompt_tokens == row[2].prompt_tokens for row in tried if row[1].texts and row[2].texts)
        outcome = (
            f"{len(tried)} places: the text differs at {len(differ)}, closer to the file's own at {closer}, "
            f"farther at {farther}; prompt tokens {'equal' if same else 'DIFFER'}"
        )
        self.stage.done("with and without", time.perf_counter() - began, outcome)

    async def _ask_name(self, editor: Editor, edit: Edit) -> list[Shown]:
        began = time.perf_counter()
        shown = [await self._complete(editor, probe, invoked=True) for probe in edit.probes]
        for probe, found in zip(edit.probes, shown, strict=True):
            self.stage.show(probe, "later", ("now", found))
        self.stage.done(
            "ask for a name", time.perf_counter() - began, f"{edit.name} does not exist yet: {_rank(edit, shown)}"
        )
        return shown

    async def _edit(self, editor: Editor, edit: Edit) -> bool:
        """Whether an adapter came of it."""
        generation = editor.changes[-1].generation
        began = time.perf_counter()
        for path, text in edit.appended.items():
            with (self.copy.root / path).open("a", encoding="utf-8", newline="") as file:
                file.write(text)
        written = time.perf_counter()
        home, *users = edit.appended
        uses = f"{len(users)} {'file' if len(users) == 1 else 'files'}"
        self.stage.done("edit on disk", written - began, f"def {edit.name} appended to {home}, used in {uses}")
        heard = await self._next_generation(editor, generation)
        spent = time.perf_counter() - written
        if not heard:
            outcome = "no new adapter: of a folder this large a sample is learned, and these files are not in it"
            if spent >= UPDATE_WITHIN_S:
                outcome = f"no new adapter within {UPDATE_WITHIN_S:.0f} s"
            self.stage.done("watcher", spent, outcome)
            return False
        self._stage_rows(editor.changes[-1], spent, len(edit.appended))
        return True

    async def _know(self, editor: Editor, edit: Edit, before: list[Shown]) -> None:
        began = time.perf_counter()
        after = [await self._complete(editor, probe, invoked=True) for probe in edit.probes]
        for probe, old, new in zip(edit.probes, before, after, strict=True):
            self.stage.show(probe, "wanted", ("before", old), ("after", new))
        self.stage.done("the same again", time.perf_counter() - began, f"{edit.name}: {_rank(edit, after)}")

    async def _again(self, edit: Edit, followed: bool) -> None:
        """Start once more on what was kept, and weigh the new name: bare, with the edit, and with it taken back."""
        settings, _ = load_user(Path(self.environment["C2L_CONFIG"]))
        async with SecondStart(self.copy.root, settings, self.environment) as engine:
            began = time.perf_counter()
            engine.open_folder()
            if not await engine.reaches(1, INDEX_WITHIN_S):
                raise EngineError("The engine did not restore the folder.")
            first = engine.changes[0]
            read = "the folder is not read again" if first.trigger == "restore" else "the folder was read anew"
            outcome = f"generation {first.info.generation} by {first.trigger}: {read}"
            self.stage.done("second start", time.perf_counter() - began, outcome)
            if not followed:
                return
            await engine.rest(UPDATE_WITHIN_S)
            bare = await engine.odds(edit.probes, adapter=False)
            with_edit = await engine.odds(edit.probes, adapter=True)
            seen, began = len(engine.changes), time.perf_counter()
            self._take_back(edit)
            await engine.reaches(seen + 1, UPDATE_WITHIN_S)
            spent = time.perf_counter() - began
            await engine.rest(UPDATE_WITHIN_S)
            outcome = f"generation {engine.changes[-1].info.generation}; the state goes back by subtraction"
            self.stage.done("edit taken back", spent, outcome)
            without = await engine.odds(edit.probes, adapter=True)
        rows = zip(_KINDS, without, with_edit, bare, strict=True)
        said = ", ".join(f"{kind} {old:.1f} → {new:.1f} (bare {none:.1f})" for kind, old, new, none in rows)
        self.stage.done("how likely is the name", 0.0, f"log-probability in nat, without → with the edit: {said}")

    # --- helpers -----------------------------------------------------------------------------------------------------

    async def _next_generation(self, editor: Editor, generation: int) -> bool:
        """Wait for a newer adapter; False when the engine has looked at the change and rests without making one."""
        deadline, resting = time.monotonic() + UPDATE_WITHIN_S, 0
        while time.monotonic() < deadline and resting < _REST_S:
            if await editor.until(lambda: editor.changes[-1].generation > generation, 1.0):
                return True
            info = await editor.request(Method.ADAPTER_INFO, {})
            resting = resting + 1 if info["state"] == "ready" and not info["pendingFiles"] else 0
        return False

    def _stage_rows(self, change: AdapterChange, spent: float, edited: int) -> None:
        ms = change.ms
        seen = spent - sum(ms.values()) / 1e3
        self.stage.done("watcher, quiet time", max(seen, 0.0), "the change was seen on disk, and no other followed")
        learned = f"{change.changed_files} of {edited} files" + (
            ", the others are outside the sample" if change.changed_files < edited else ""
        )
        self.stage.done("diff batch", (ms.get("scan", 0) + ms.get("read", 0)) / 1e3, learned)
        self.stage.done("state update", ms.get("update", 0) / 1e3, "the batch is folded into the state")
        rest = (ms.get("adapter", 0) + ms.get("gate", 0)) / 1e3
        self.stage.done("new adapter", rest, f"generation {change.generation}; {spent:.1f} s after the edit in all")

    def _take_back(self, edit: Edit) -> None:
        for path, text in edit.appended.items():
            file = self.copy.root / path
            left = file.read_bytes().removesuffix(text.encode())
            if left:
                file.write_bytes(left)
            else:
                file.unlink()

    async def _pair(self, editor: Editor, place: Place) -> tuple[Shown, Shown]:
        await editor.use_adapter(False)
        bare = await self._complete(editor, place, invoked=False)
        await editor.use_adapter(True)
        return bare, await self._complete(editor, place, invoked=False)

    async def _complete(self, editor: Editor, place: Place, *, invoked: bool) -> Shown:
        uri = editor.open(place.path, place.text)
        try:
            return await editor.complete(uri, place.line, place.column, invoked=invoked)
        finally:
            editor.shut(uri)


def _settled(editor: Editor) -> bool:
    status = editor.status
    return status is not None and status.state not in (State.STARTING, State.LOADING)


def _last(editor: Editor, fallback: str) -> str:
    return editor.troubles[-1] if editor.troubles else fallback


def _stages(change: AdapterChange) -> str:
    return ", ".join(f"{name} {spoken(ms / 1e3)}" for name, ms in change.ms.items() if ms >= 50)


def _agreement(place: Place, shown: Shown) -> float:
    return difflib.SequenceMatcher(None, place.expected.strip(), shown.text.strip(), autojunk=False).ratio()


def _rank(edit: Edit, shown: list[Shown]) -> str:
    """Where the new name stands among the candidates of each probe, in words."""
    said = []
    for kind, place, found in zip(_KINDS, edit.probes, shown, strict=True):
        wanted = _first_word(place.expected)
        at = next((number for number, text in enumerate(found.texts, 1) if _first_word(text) == wanted), 0)
        said.append(f"{kind}: {'not suggested' if not at else 'suggested' if at == 1 else f'candidate {at}'}")
    return ", ".join(said)


def _first_word(text: str) -> str:
    return re.split(r"\W", text.strip(), maxsplit=1)[0]
