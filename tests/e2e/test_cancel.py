"""Cancelled and superseded requests: each is answered, and cancelled in the engine."""

from __future__ import annotations

import time

import pytest
from c2l_lab.clients.lsp import ResponseError
from lsprotocol import types as t

from tests.support.editor import AUTOMATIC, INVOKED, Editor


def test_cancelled_request_is_answered_and_cancelled_in_the_engine(shared: Editor, place: str) -> None:
    shared.change(place, "SLOW:9")
    waiting = shared.send_completion(place, 0, 6)
    shared.until(lambda: any("SLOW:9" in n["params"]["prefix"] for n in shared.engine_requests("complete")))
    shared.cancel(waiting)
    with pytest.raises(ResponseError) as caught:
        shared.result(waiting, 5)
    assert caught.value.rpc_code == t.LSPErrorCodes.RequestCancelled.value
    shared.until(lambda: any("cancelled" in note for note in shared.engine_requests()), 2)


def test_newer_request_supersedes_the_older_which_is_answered(shared: Editor, place: str) -> None:
    shared.change(place, "SLOW:9 a")
    older = shared.send_completion(place, 0, 8)
    shared.until(lambda: any(n["params"]["prefix"] == "SLOW:9 a" for n in shared.engine_requests("complete")))
    shared.change(place, "b")
    newer = shared.texts(place, 0, 1)
    assert newer[0] == "_b_g1_0()"
    assert shared.items(older, 2) is None


def test_every_keystroke_of_a_burst_is_answered(shared: Editor, place: str) -> None:
    """Like an editor that never cancels: one request per typed character, without waiting for the previous one."""
    shared.change(place, "\n")
    requests = []
    for at in range(100):
        shared.change(place, ((0, at), (0, at), "ab"[at % 2]))
        requests.append(shared.send_completion(place, 0, at + 1, AUTOMATIC))
    answers = [shared.items(number) for number in requests]
    assert answers[-1][0].insert_text.startswith("_" + "ab" * 50)
    assert sum(answer is not None for answer in answers) < 20
    sent = [note for note in shared.engine_requests("complete") if "ababab" in note["params"]["prefix"]]
    assert len(sent) < 20


def test_requests_cancelled_at_random_times_are_answered(shared: Editor, place: str) -> None:
    shared.change(place, "SLOW:0.02")
    numbers = []
    for number in range(60):
        numbers.append(shared.send_completion(place, 0, 9, AUTOMATIC if number % 3 else INVOKED))
        time.sleep(number % 7 * 0.01)
        shared.cancel(numbers[-1])
    for number in numbers:
        reply = shared.reply(number)
        assert "error" in reply or reply["result"] is None or reply["result"]["items"]
        assert len(shared.replies[number]) == 1
    assert (shared.texts(place, 0, 9))[0]
