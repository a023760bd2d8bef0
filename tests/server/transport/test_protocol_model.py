"""Requests, responses, cancellations and invalid messages in any order: each request gets one response."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from c2l_lsp.server.transport.rpc import INVALID_PARAMS, INVALID_REQUEST, Server

IDS = st.one_of(st.integers(0, 6), st.sampled_from(["a", "b", "0", ""]))
UNKNOWN, CANCELLED = -32601, -32800


class Protocol(RuleBasedStateMachine):
    """`open`: requests without a response. `expected`: counts of the responses so far, by (id, code; 0: a result)."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.sent: list[dict] = []
        self.expected: Counter[tuple[object, int]] = Counter()
        self.open: dict[object, bool] = {}
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.tokens: dict[object, int] = {}
        self.token = 0
        self.down = False
        logging.disable(logging.CRITICAL)  # logging every refused message is slow

    @initialize()
    def begin(self) -> None:
        self.server = Server()
        self.server.protocol.set_writer(self)

        @self.server.feature("c2l/slow")
        async def slow(params: Any) -> int:
            future = self.waiting[params["token"]] = asyncio.get_running_loop().create_future()
            await future
            return 1

        @self.server.feature("c2l/fast")
        def fast(_: Any) -> int:
            return 2

        params = {"capabilities": {}, "processId": None, "rootUri": None}
        self.send({"id": "hello", "method": "initialize", "params": params})
        self.expected["hello", 0] += 1

    # the writer interface of pygls
    def write(self, data: bytes) -> None:
        self.sent.append(json.loads(data.partition(b"\r\n\r\n")[2]))

    def close(self) -> None: ...

    def send(self, message: dict) -> None:
        async def received() -> None:
            self.server.protocol.receive(json.dumps({"jsonrpc": "2.0", **message}).encode())
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(received())

    def ask(self, number: object, method: str, code: int, params: object = None) -> bool:
        """Send a request and expect its response now; returns whether the server accepted the request."""
        accepted = not self.down and number not in self.open
        self.send({"id": number, "method": method, "params": params})
        if not accepted:
            self.expected[number, INVALID_REQUEST] += 1
        elif method != "c2l/slow":
            self.expected[number, code] += 1
        return accepted

    @rule(number=IDS)
    def slow_request(self, number: object) -> None:
        self.token += 1
        if self.ask(number, "c2l/slow", 0, {"token": self.token}):
            self.open[number] = True
            self.tokens[number] = self.token

    @rule(number=IDS, method=st.sampled_from([("c2l/fast", 0), ("unknown/request", UNKNOWN), ("exit!", UNKNOWN)]))
    def quick_request(self, number: object, method: tuple[str, int]) -> None:
        self.ask(number, *method, {})

    @rule(number=IDS)
    def wrong_parameters(self, number: object) -> None:
        self.ask(number, "textDocument/hover", INVALID_PARAMS, {"textDocument": 5})

    @rule(number=IDS)
    def notification_with_an_id(self, number: object) -> None:
        document = {"textDocument": {"uri": "file:///a"}}
        self.ask(number, "textDocument/didClose", INVALID_REQUEST, document)

    @rule(number=IDS)
    def second_initialize(self, number: object) -> None:
        self.ask(number, "initialize", INVALID_REQUEST, {"capabilities": {}})

    @rule(number=IDS)
    def cancel(self, number: object) -> None:
        self.send({"method": "$/cancelRequest", "params": {"id": number}})
        if self.open.pop(number, None) and not self.down:
            self.expected[number, CANCELLED] += 1

    @rule(number=IDS)
    def finish(self, number: object) -> None:
        if self.open.pop(number, None):
            self.waiting[self.tokens[number]].set_result(None)
            self.send({"method": "unknown/notification"})
            self.expected[number, 0] += 1

    @rule(number=st.one_of(IDS, st.none()), error=st.booleans())
    def response_without_a_request(self, number: object, error: bool) -> None:
        self.send({"id": number, **({"error": {"code": 1, "message": "x"}} if error else {"result": None})})

    @rule(
        message=st.sampled_from(
            [{}, {"method": 7}, {"method": "unknown/notification"}, {"method": "c2l/slow"}, {"id": []}]
        )
    )
    def nonsense(self, message: dict) -> None:
        if message.get("method") != "c2l/slow":
            self.send(message)

    @rule(number=IDS, really=st.integers(0, 9))
    def shutdown(self, number: object, really: int) -> None:
        if really or number in self.open or self.down:
            return
        self.send({"id": number, "method": "shutdown"})
        self.expected[number, 0] += 1
        for left in self.open:
            self.expected[left, CANCELLED] += 1
        self.open.clear()
        self.down = True

    @invariant()
    def responses_match_the_model(self) -> None:
        got = Counter((message.get("id"), message.get("error", {}).get("code", 0)) for message in self.sent)
        assert got == self.expected

    def teardown(self) -> None:
        for future in self.waiting.values():
            future.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        logging.disable(logging.NOTSET)


def of_size(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


Protocol.TestCase.settings = of_size(12, 20)
test_any_order_of_messages = Protocol.TestCase


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_order_of_messages_at_length():
    run_state_machine_as_test(Protocol, settings=of_size(1000, 60))
