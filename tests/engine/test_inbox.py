"""The queue of requests between the reader thread and the main loop."""

from __future__ import annotations

from c2l_lsp.engine import wire
from c2l_lsp.engine.inbox import Inbox


def test_cancelling_finished_requests_uses_no_memory():
    inbox = Inbox()
    for number in range(1000):
        inbox.add(wire.Request(id=2 * number, method="cancel", params={"id": 2 * number - 1}))
        inbox.finish(inbox.take(0).id)
    assert not inbox._cancelled
    assert not inbox._pending


def test_only_the_latest_text_of_a_document_waits_and_every_request_is_answered():
    inbox = Inbox()
    for number in range(1, 1001):
        params = {"folder": "/w", "path": f"{number % 2}.py", "text": str(number) * 100}
        inbox.add(wire.Request(id=number, method="buffer", params=params))
    inbox.add(wire.Request(id=1001, method="close_folder", params={"folder": "/w"}))
    inbox.add(wire.Request(id=1002, method="buffer", params={"folder": "/w", "path": "0.py", "text": "after"}))
    taken = [inbox.take(0) for _ in range(1002)]
    assert [request.id for request in taken] == list(range(1, 1003))
    texts = [(request.id, request.params["text"]) for request in taken if request.method == "buffer"]
    assert texts == [(999, "999" * 100), (1002, "after")]
    assert inbox._buffers == {}


def test_other_requests_come_before_completions():
    inbox = Inbox()
    for number, method in enumerate(["complete", "buffer", "complete", "ping"], 1):
        inbox.add(wire.Request(id=number, method=method, params={}))
    assert [inbox.take(0).id for _ in range(4)] == [2, 4, 1, 3]
    assert inbox.take(0) is None


def test_a_request_is_cancelled_by_its_id_or_by_the_end_of_the_stream():
    inbox = Inbox()
    for number in (1, 2):
        inbox.add(wire.Request(id=number, method="complete", params={}))
    inbox.add(wire.Request(id=3, method="cancel", params={"id": 2}))
    assert [inbox.is_cancelled(number) for number in (1, 2)] == [False, True]
    inbox.close()
    assert inbox.is_cancelled(1)
