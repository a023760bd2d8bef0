"""Ghost texts at places of a repository as text to read: the text around the cursor, and what is suggested there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from c2l_lab.benchmarks.perf.typing import Place
from c2l_lab.clients.lsp import AUTOMATIC, INVOKED, LanguageClient
from c2l_lsp.text import splits_word

_ABOVE, _BELOW = 4, 2
CURSOR = "▮"


def spots(places: Sequence[Place], seed: int = 0) -> Iterator[tuple[Place, int]]:
    """For each place an offset in its text at which a word ends."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    for place in places:
        text = "".join(key.text for key in place.keys)
        ends = [at for at in range(len(text)) if not splits_word(text[:at], text[at:])]
        yield place, draw.choice(ends)


def write(client: LanguageClient, places: Sequence[Place]) -> str:
    """The text of all places as Markdown."""
    return "\n".join(_entry(client, number, *spot) for number, spot in enumerate(spots(places), 1))


def _entry(client: LanguageClient, number: int, place: Place, at: int) -> str:
    text = "".join(key.text for key in place.keys)
    before, author = place.prefix + text[:at], text[at:].split("\n")[0]
    after = place.suffix
    uri = (Path("/none") / str(number) / place.path).as_uri()
    client.open(uri, before + after)
    lines = before.split("\n")
    position = len(lines) - 1, len(lines[-1])
    rows = [f"## {number}. {place.path}:{len(lines)}", "", "```python", *lines[-_ABOVE - 1 : -1]]
    rows += [lines[-1] + CURSOR + after.split("\n")[0], *after.split("\n")[1 : 1 + _BELOW], "```", ""]
    rows.append(f"- author: `{author}`")
    for name, kind in (("unasked", AUTOMATIC), ("requested", INVOKED)):
        items = client.complete(uri, *position, kind) or []
        found = [item.insert_text if isinstance(item.insert_text, str) else item.insert_text.value for item in items]
        rows.append(f"- {name}: " + (", ".join(f"`{one.replace(chr(10), '⏎')}`" for one in found) or "nothing"))
    client.close(uri)
    return "\n".join([*rows, ""])


def gallery(command: Sequence[str], private: Path, model: str, places: Sequence[Place]) -> str:
    """The gallery that a server gives, without adapter and without limits of time."""
    environment = {"C2L_STATE_DIR": str(private / "state"), "C2L_CONFIG": str(private / "none.toml")}
    options = {
        "model.id": model, "adapter.enable": False, "completion.debounceMs": 0, "completion.maxLatencyMs": 20_000,
        "completion.maxLatencyInvokedMs": 20_000,
    }  # fmt: skip
    with LanguageClient(environment, command, log=private / "server.log") as client:
        client.initialize([], {"userSettings": options}, encodings=["utf-32"], timeout=120)
        client.ready(300)
        found = write(client, places)
        client.shutdown()
    return found
