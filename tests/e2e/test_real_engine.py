"""The complete system without fakes: the shipped model, a repository on disk, `c2l-lsp serve --stdio`.

One server and one repository for the file; the tests run in order and each leaves the editor usable.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from c2l_lab.clients.lsp import ResponseError
from lsprotocol import types as t

from c2l_lsp.engine.storage.store import FolderStore, folder_key
from c2l_lsp.model.lm.base import ASSETS, NANO, SHIPPED
from tests.support.editor import AUTOMATIC, SERVER, Editor

pytestmark = [
    pytest.mark.skipif(
        not (ASSETS / NANO / "model.safetensors").exists(),
        reason="the shipped model is not in this checkout",
    ),
]
CODE = '''"""Orders and their parts."""


class Warehouse:
    def __init__(self, name):
        self.name = name
        self.shelves = []

    def add_shelf(self, shelf):
        self.shelves.append(shelf)
        return shelf

    def count_parts(self):
        return sum(len(shelf.parts) for shelf in self.shelves)


def open_warehouse(name):
    warehouse = Warehouse(name)
    return warehouse
'''
OPEN = "from store import open_warehouse\n\n\ndef main():\n    warehouse = open_"
END = (4, 21)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    home = tmp_path_factory.mktemp("real")
    work = home / "work"
    work.mkdir()
    (work / "store.py").write_text(CODE, encoding="utf-8")
    (work / "shelf.py").write_text("class Shelf:\n    parts = ()\n", encoding="utf-8")
    private = {"C2L_STATE_DIR": str(home / "state"), "C2L_CONFIG": str(home / "c"), "HF_HUB_OFFLINE": "1"}
    # One thread: two wait for each other all the time where other work holds one of the cores.
    editor = Editor(SERVER, home / "none.log", **private, OMP_NUM_THREADS="1")
    editor.timeout = 90.0
    patient = {"completion": {"maxLatencyMs": 20_000, "maxLatencyInvokedMs": 20_000, "maxNewTokens": 12}}
    editor.initialize([work], progress=True, options=patient)  # a busy test machine is not what is tested here
    yield editor
    editor.end()


@pytest.fixture
def main(real: Editor) -> str:
    """The URI of a document that ends where a name of the repository begins."""
    uri = (real.engine_log.parent / "work" / "main.py").as_uri()
    real.close(uri)
    real.open(uri, OPEN)
    return uri


def test_start_to_first_adapter(real: Editor) -> None:
    status = real.status(lambda s: s["state"] == "ready" and s["adapter"], 150)
    assert status["model"] in SHIPPED
    assert status["adapter"]["generation"] >= 1
    assert status["adapter"]["files"] == 2
    states = [one["state"] for one in real.statuses]
    assert {"starting", "loading", "indexing", "ready"} <= set(states)
    assert real.progress()
    assert real.shown() == []


def test_completions_with_and_without_the_adapter(real: Editor, main: str) -> None:
    items = real.complete(main, *END)
    assert items
    assert items[0].range == t.Range(t.Position(*END), t.Position(*END))
    with_adapter = real.request("c2l/explain", {"id": items[0].command.arguments[0]})
    assert with_adapter["generation"] >= 1
    assert (real.command("c2l.toggleAdapter"))["enabled"] is False
    bare_items = real.complete(main, *END)
    bare = real.request("c2l/explain", {"id": bare_items[0].command.arguments[0]})
    assert bare["generation"] == 0
    assert bare["promptTokens"] == with_adapter["promptTokens"]
    assert (real.command("c2l.toggleAdapter"))["enabled"] is True
    assert [item.insert_text for item in real.complete(main, *END)] == [item.insert_text for item in items]


def test_automatic_request_gets_at_most_one_candidate(real: Editor, main: str) -> None:
    real.change(main, f"# automatic\n{OPEN}")  # a text without a cached explicit result, which has several candidates
    real.complete(main, END[0] + 1, END[1], AUTOMATIC)
    real.change(main, f"# automatic\n{OPEN}w")
    items = real.complete(main, END[0] + 1, END[1] + 1, AUTOMATIC)
    assert items is not None
    assert len(items) <= 1
    report = real.request("c2l/statistics")
    assert report["latencyMs"]["count"] >= 1
    assert report["withAdapter"]["shown"] >= 1


def test_popup_entry_is_continued(real: Editor, main: str) -> None:
    place = t.Range(t.Position(4, 16), t.Position(*END))
    positions = {"start": {"line": 4, "character": 16}, "end": {"line": END[0], "character": END[1]}}
    entry = {"range": positions, "text": "open_warehouse"}
    items = real.complete(main, *END, selectedCompletionInfo=entry)
    assert all(item.insert_text.startswith("open_warehouse") and item.range == place for item in items)


def test_cancelled_completion_is_answered(real: Editor, main: str) -> None:
    for number in range(10):
        real.change(main, f"# {number}\n{OPEN}")
        waiting = real.send_completion(main, END[0] + 1, END[1])
        time.sleep(0.02 * number)
        real.cancel(waiting)
        reply = real.reply(waiting, 60)
        cancelled = reply.get("error", {}).get("code") == t.LSPErrorCodes.RequestCancelled.value
        assert cancelled or "items" in reply["result"]
    assert real.complete(main, END[0] + 1, END[1]) is not None


def test_new_file_leads_to_a_new_generation(real: Editor) -> None:
    work = real.engine_log.parent / "work"
    before = len(real.adapters)
    (work / "fresh.py").write_text("def close_warehouse(warehouse):\n    warehouse.shelves.clear()\n", encoding="utf-8")
    real.until(lambda: any(one["trigger"] == "diff" for one in real.adapters[before:]), 90)
    assert real.adapters[-1]["generation"] > real.adapters[0]["generation"]
    assert real.adapters[-1]["changedFiles"] >= 1


def test_positions_after_non_bmp_and_separator_characters(real: Editor, main: str) -> None:
    real.change(main, 'x = "𝄞\u2028\x0c"; y = (\r\n')
    items = real.complete(main, 0, 16)
    assert all(item.range.start == t.Position(0, 16) for item in items)


def test_killed_engine_restarts_with_its_adapter(real: Editor, main: str) -> None:
    generation = real.adapters[-1]["generation"]
    home = real.engine_log.parent
    store = FolderStore(home / "state" / folder_key(home / "work"))

    def saved() -> bool:
        """Whether the live generation is on disk: it is written in the background after it is published."""
        metadata = store.load_metadata()
        return metadata is not None and metadata.generation >= generation

    real.until(saved, 30)
    engine = real.engines()[0]
    adapters, statuses = len(real.adapters), len(real.statuses)
    engine.kill()
    psutil.wait_procs([engine], timeout=5)
    real.until(lambda: len(real.adapters) > adapters, 90)
    assert real.adapters[adapters]["trigger"] == "restore"
    assert real.adapters[adapters]["generation"] >= generation
    assert "starting" in [status["state"] for status in real.statuses[statuses:]]
    real.ready(90)
    assert real.complete(main, *END)


def test_unload_and_load(real: Editor, main: str) -> None:
    real.command("c2l.unloadModel")
    assert real.engines() == []
    real.request("c2l/model/load", {})
    real.status(lambda s: s["state"] == "ready" and s["adapter"], 90)
    assert real.complete(main, *END)


def test_export_adapter(real: Editor, tmp_path: Path) -> None:
    """With so little text, validation may reject the adapter; then there is nothing to export."""
    info = real.request("c2l/adapter/info", {})
    export = real.send("c2l/adapter/export", {"out": str(tmp_path / "adapter"), "rank": 8})
    if info["scale"] == 0:
        with pytest.raises(ResponseError, match="There is no adapter"):
            real.result(export)
    else:
        assert real.result(export)["generation"] == info["generation"]
        assert (tmp_path / "adapter" / "adapter_config.json").exists()
