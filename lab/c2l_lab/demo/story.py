"""The steps of the demo in their order: what the client does, what it waits for, and how the result is reported."""

from __future__ import annotations

import difflib
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from c2l_lab.clients.lsp import AUTOMATIC, INVOKED, LanguageClient
from c2l_lab.demo import places
from c2l_lab.demo.copy import Copy
from c2l_lab.demo.display import Display, OnMessage, Suggestion
from c2l_lab.demo.places import Edit, Place
from c2l_lab.demo.restarted import RestartedEngine
from c2l_lsp.config import load_user
from c2l_lsp.errors import EngineError
from c2l_lsp.server.transport.protocol import AdapterChange, Method, State, parse

LOAD_TIMEOUT_S = 180.0
INDEX_TIMEOUT_S = 900.0
UPDATE_TIMEOUT_S = 120.0
_MAX_PLACES = 12
_PLACES_TIMEOUT_S = 25.0
_SETTLED_POLLS = 6
_PROBES = ("import", "call", "started call")
"""What the probes of `places.plan_edit` ask for, in their order."""
_EDITS = ("tokens", "diff")
"""Triggers of an adapter that follows an edit."""


@dataclass
class Story:
    """Runs the steps on a copy of a repository. `environment` holds the variables of the server's process."""

    copy: Copy
    display: Display
    environment: dict[str, str]
    first_s: float = 0.0
    edit_s: float = 0.0

    def run(self) -> None:
        """Run all steps. EngineError or TimeoutError if a step does not finish."""
        parsed = places.parse(self.copy.root, places.sample(self.copy.python))
        edit = places.plan_edit(self.copy.root, parsed, self.copy.python)
        started_with = self._score_before(edit)
        began = time.perf_counter()
        with self.display.progress_bar() as on_message, self._client(on_message) as client:
            self._start(client, began)
            self._index(client)
            self._compare(client, places.call_places(parsed, _MAX_PLACES))
            before = self._ask_for_new_name(client, edit)
            updated = self._edit(client, edit)
            self._ask_again(client, edit, before)
            began = time.perf_counter()
            client.shutdown()
            self.display.step("shut down", time.perf_counter() - began, "the server and its engine have exited")
        gained = self._restart(edit, updated, started_with)
        self.display.memorable = [
            f"{self.first_s:.1f} s from the opened folder to an adapter that knows all of it",
            f"{self.edit_s:.1f} s from the edit to an adapter that knows it" if updated else "the edit was not learned",
            f"{math.exp(min(gained, 50.0)):,.0f} times: how much more likely the edit made its new name in a call",
        ]

    # --- steps -------------------------------------------------------------------------------------------------------

    def _score_before(self, edit: Edit) -> list[float]:
        """The new name's log-probabilities before the edit, by an engine whose state is apart from the demo's own."""
        settings, _ = load_user(Path(self.environment["C2L_CONFIG"]))
        state = self.copy.root.parent / "state-before"
        with RestartedEngine(self.copy.root, settings, {**self.environment, "C2L_STATE_DIR": str(state)}) as engine:
            engine.open_folder(INDEX_TIMEOUT_S)
            engine.settle(UPDATE_TIMEOUT_S)
            return engine.log_probabilities(edit.probes, adapter=True)

    def _start(self, client: LanguageClient, began: float) -> None:
        client.initialize([self.copy.root], progress=True)
        self.display.step("start the server", time.perf_counter() - began, "it answers; its engine process is starting")
        loading = (State.STARTING.value, State.LOADING.value)
        status = client.status(lambda status: status["state"] not in loading, LOAD_TIMEOUT_S)
        if status["state"] == State.FAILED.value:
            raise EngineError(str(status["message"]))
        self.display.step("load the model", time.perf_counter() - began, f"{status['model']}, in the engine process")

    def _index(self, client: LanguageClient) -> None:
        began = time.perf_counter()
        client.wait_until(
            lambda: client.adapters or client.statuses[-1]["state"] == State.FAILED.value, INDEX_TIMEOUT_S
        )
        if not client.adapters:
            messages = client.shown()
            raise EngineError(messages[-1] if messages else f"No adapter within {INDEX_TIMEOUT_S:.0f} s.")
        change = _last_change(client)
        self.first_s = time.perf_counter() - began
        message = f"; {change.adapter.message}" if change.adapter.message else ""
        outcome = f"adapter generation {change.generation} knows all {change.adapter.files} files{message}"
        self.display.step("index the repository", self.first_s, outcome)

    def _compare(self, client: LanguageClient, candidates: Sequence[Place]) -> None:
        """Complete with the adapter off and on; show the first place where the text differs, and count over all."""
        began = time.perf_counter()
        tried: list[tuple[Place, Suggestion, Suggestion]] = []
        for place in candidates:
            if time.perf_counter() - began > _PLACES_TIMEOUT_S:
                break
            tried.append((place, *self._complete_off_and_on(client, place)))
        if not tried:
            self.display.step("adapter off and on", 0.0, "no assignment or return statement to complete")
            return
        differ = [row for row in tried if row[1].text != row[2].text]
        for place, off, on in differ[:1] or tried[:1]:
            self.display.completions(place, ("adapter off", off), ("adapter on", on), expected="in the file")
        closer = sum(_similarity(place, on) > _similarity(place, off) for place, off, on in tried)
        farther = sum(_similarity(place, on) < _similarity(place, off) for place, off, on in tried)
        same = all(off.prompt_tokens == on.prompt_tokens for _, off, on in tried if off.texts and on.texts)
        outcome = (
            f"of {len(tried)} completions the adapter changed {len(differ)}: {closer} closer to the file, "
            f"{farther} farther; {'same prompt length' if same else 'PROMPT LENGTH DIFFERS'}"
        )
        self.display.step("adapter off and on", time.perf_counter() - began, outcome)

    def _ask_for_new_name(self, client: LanguageClient, edit: Edit) -> list[Suggestion]:
        began = time.perf_counter()
        found = [self._complete(client, probe, invoked=True) for probe in edit.probes]
        for probe, suggestion in zip(edit.probes, found, strict=True):
            self.display.completions(probe, ("now", suggestion), expected="after the edit")
        outcome = f"{edit.name} does not exist yet. {_ranks(edit, found)}"
        self.display.step("before the edit", time.perf_counter() - began, outcome)
        return found

    def _edit(self, client: LanguageClient, edit: Edit) -> bool:
        """Append the new function and its uses to files on disk; whether a new adapter followed."""
        generation = _last_change(client).generation
        began = time.perf_counter()
        for path, text in edit.appended.items():
            with (self.copy.root / path).open("a", encoding="utf-8", newline="") as file:
                file.write(text)
        written = time.perf_counter()
        home, *users = edit.appended
        files = "1 file" if len(users) == 1 else f"{len(users)} files"
        self.display.step("edit on disk", written - began, f"added {edit.name}() to {home} and calls of it to {files}")
        change = self._wait_for_edit(client, generation)
        self.edit_s = time.perf_counter() - written
        if change is None:
            self.display.step("new adapter", self.edit_s, f"none within {UPDATE_TIMEOUT_S:.0f} s")
            return False
        changed = f"{min(change.changed_files, len(edit.appended))} of {len(edit.appended)} files"
        self.display.step("new adapter", self.edit_s, f"generation {change.generation} is live and knows {changed}")
        return True

    def _ask_again(self, client: LanguageClient, edit: Edit, before: Sequence[Suggestion]) -> None:
        began = time.perf_counter()
        after = [self._complete(client, probe, invoked=True) for probe in edit.probes]
        for probe, old, new in zip(edit.probes, before, after, strict=True):
            self.display.completions(probe, ("before", old), ("after", new), expected="expected")
        self.display.step("after the edit", time.perf_counter() - began, f"{edit.name}. {_ranks(edit, after)}")

    def _restart(self, edit: Edit, updated: bool, before: Sequence[float]) -> float:
        """Start the engine again on the saved state, then revert the edit and compare the name's log-probabilities.

        `before` are those before the edit. Returns by how much the edit raised that of the first call, in nat.
        """
        settings, _ = load_user(Path(self.environment["C2L_CONFIG"]))
        with RestartedEngine(self.copy.root, settings, self.environment) as engine:
            began = time.perf_counter()
            first = engine.open_folder(INDEX_TIMEOUT_S)
            source = "restored from disk, no file read" if first.trigger == "restore" else "indexed again"
            outcome = f"adapter generation {first.info.generation}: {source}"
            self.display.step("restart the engine", time.perf_counter() - began, outcome)
            if not updated:
                return 0.0
            engine.settle(UPDATE_TIMEOUT_S)
            base = engine.log_probabilities(edit.probes, adapter=False)
            with_edit = engine.log_probabilities(edit.probes, adapter=True)
            began = time.perf_counter()
            generations = len(engine.changes())
            self._revert(edit)
            engine.wait_for_changes(generations + 1, UPDATE_TIMEOUT_S)
            spent = time.perf_counter() - began
            engine.settle(UPDATE_TIMEOUT_S)
            outcome = (
                f"adapter generation {engine.changes()[-1].info.generation}: the edit is subtracted from the state"
            )
            self.display.step("revert the edit", spent, outcome)
            without = engine.log_probabilities(edit.probes, adapter=True)
        for kind, began_at, new, old, none in zip(_PROBES, before, with_edit, without, base, strict=True):
            outcome = (
                f"log p(name): {began_at:.1f} before the edit, {new:.1f} with it, {old:.1f} after the revert, "
                f"{none:.1f} base model (nat)"
            )
            self.display.step(f"likelihood, {kind}", None, outcome)
        call = _PROBES.index("call")
        return with_edit[call] - without[call]

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _client(self, on_message: OnMessage) -> LanguageClient:
        # `python -m` searches the working directory first, so that must not be the repository.
        work = self.copy.root.parent
        return LanguageClient(self.environment, log=work / "server.log", cwd=work, on_message=on_message)

    def _wait_for_edit(self, client: LanguageClient, generation: int) -> AdapterChange | None:
        """The first newer adapter that was made because files changed; None if there is none in time."""

        def found() -> AdapterChange | None:
            changes = (parse(plain, AdapterChange) for plain in client.adapters)
            newer = (change for change in changes if change.generation > generation and change.trigger in _EDITS)
            return next(newer, None)

        client.wait_until(found, UPDATE_TIMEOUT_S)
        return found()

    def _revert(self, edit: Edit) -> None:
        for path, text in edit.appended.items():
            file = self.copy.root / path
            rest = file.read_bytes().removesuffix(text.encode())
            if rest:
                file.write_bytes(rest)
            else:
                file.unlink()

    def _complete_off_and_on(self, client: LanguageClient, place: Place) -> tuple[Suggestion, Suggestion]:
        found = []
        for enabled in (False, True):
            switch = {"folder": self.copy.root.as_uri(), "enabled": enabled}
            client.request(Method.ADAPTER_SET_ENABLED.value, switch)
            found.append(self._complete(client, place, invoked=False))
        return found[0], found[1]

    def _complete(self, client: LanguageClient, place: Place, *, invoked: bool) -> Suggestion:
        uri = (self.copy.root / place.path).as_uri()
        client.open(uri, place.text)
        try:
            items = client.complete(uri, place.line, place.column, INVOKED if invoked else AUTOMATIC) or []
            texts = tuple(str(item.insert_text) for item in items)
            if not items or items[0].command is None or not items[0].command.arguments:
                return Suggestion(texts)
            explanation = client.request(Method.EXPLAIN.value, {"id": items[0].command.arguments[0]})
            return Suggestion(texts, explanation["promptTokens"])
        finally:
            client.close(uri)


def _last_change(client: LanguageClient) -> AdapterChange:
    return parse(client.adapters[-1], AdapterChange)


def _similarity(place: Place, suggestion: Suggestion) -> float:
    return difflib.SequenceMatcher(None, place.expected.strip(), suggestion.text.strip(), autojunk=False).ratio()


def _ranks(edit: Edit, found: Sequence[Suggestion]) -> str:
    """The rank of the new name among the candidates of each probe, as text."""
    ranks = []
    for kind, place, suggestion in zip(_PROBES, edit.probes, found, strict=True):
        wanted = _first_word(place.expected)
        rank = next((at for at, text in enumerate(suggestion.texts, 1) if _first_word(text) == wanted), 0)
        ranks.append(f"{kind}: {'not suggested' if not rank else 'suggested' if rank == 1 else f'candidate {rank}'}")
    return ", ".join(ranks)


def _first_word(text: str) -> str:
    return re.split(r"\W", text.strip(), maxsplit=1)[0]
