"""The background writer on a store that blocks."""

from __future__ import annotations

import threading

from c2l_lsp.engine.storage.background_writer import BackgroundWriter, WriteJob


def test_a_discarded_job_is_not_written():
    class Store:
        epoch = 0

        def __init__(self) -> None:
            self.written: list[object] = []
            self.started, self.may = threading.Event(), threading.Event()

        def save(self, saved: object, *_: object) -> bool:
            self.started.set()
            self.may.wait(30)
            self.written.append(saved)
            return True

        def close(self) -> None: ...

    store = Store()
    writer = BackgroundWriter(store)
    writer.submit(WriteJob("first", None, {}))
    assert store.started.wait(30)
    writer.submit(WriteJob("second", None, {}))
    writer.discard_pending()
    store.may.set()
    writer.close(30)
    assert store.written == ["first"]
