"""Cancelled and overtaken requests: each is answered, and the engine stops."""

from __future__ import annotations

import asyncio

import pytest
from lsprotocol import types as t
from pygls.exceptions import JsonRpcException

from tests.support.editor import AUTOMATIC, INVOKED, Editor

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_cancelled_request_is_answered_and_stops_the_engine(shared: Editor, place: str) -> None:
    shared.change(place, "SLOW:9")
    params = shared.inline_params(place, 0, 6, INVOKED)
    waiting = shared.client.protocol.send_request("textDocument/inlineCompletion", params, msg_id="mine")
    await shared.until(lambda: any("SLOW:9" in n["params"]["prefix"] for n in shared.asked("complete")))
    shared.client.cancel_request(t.CancelParams(id="mine"))
    with pytest.raises(JsonRpcException) as caught:
        await asyncio.wait_for(asyncio.wrap_future(waiting), 5)
    assert caught.value.code == t.LSPErrorCodes.RequestCancelled.value
    await shared.until(lambda: any("cancelled" in note for note in shared.asked()), 2)


async def test_a_newer_request_overtakes_and_the_older_is_answered(shared: Editor, place: str) -> None:
    shared.change(place, "SLOW:9 a")
    older = asyncio.ensure_future(shared.complete(place, 0, 8))
    await shared.until(lambda: any(n["params"]["prefix"] == "SLOW:9 a" for n in shared.asked("complete")))
    shared.change(place, "b")
    newer = await shared.texts(place, 0, 1)
    assert newer[0] == "_b_g1_0()"
    assert await asyncio.wait_for(older, 2) is None


async def test_a_hundred_keystrokes_with_a_hundred_answers(shared: Editor, place: str) -> None:
    """As an editor that never cancels: a request for every character typed, nobody waiting for the last one."""
    shared.change(place, "\n")
    asked = []
    for at in range(100):
        shared.change(place, ((0, at), (0, at), "ab"[at % 2]))
        asked.append(asyncio.ensure_future(shared.complete(place, 0, at + 1, AUTOMATIC)))
        await asyncio.sleep(0)
    answers = await asyncio.wait_for(asyncio.gather(*asked), 20)
    assert answers[-1][0].insert_text.startswith("_" + "ab" * 50)
    assert sum(answer is not None for answer in answers) < 20
    sent = [note for note in shared.asked("complete") if "ababab" in note["params"]["prefix"]]
    assert len(sent) < 20


async def test_cancelling_at_random_moments(shared: Editor, place: str) -> None:
    shared.change(place, "SLOW:0.02")
    ends = []
    for number in range(60):
        params = shared.inline_params(place, 0, 9, AUTOMATIC if number % 3 else INVOKED)
        name = f"random-{number}"
        ends.append(
            asyncio.wrap_future(
                shared.client.protocol.send_request("textDocument/inlineCompletion", params, msg_id=name)
            )
        )
        await asyncio.sleep(number % 7 * 0.01)
        shared.client.cancel_request(t.CancelParams(id=name))
    found = await asyncio.wait_for(asyncio.gather(*ends, return_exceptions=True), 20)
    assert len(found) == 60
    assert all(isinstance(one, JsonRpcException) or one is None or one.items for one in found)
    assert (await shared.texts(place, 0, 9))[0]
