"""Cancels at random moments: a reply for each request, and the engine's work stops at the next step."""

from __future__ import annotations

import random
import time

from c2l_lsp.bench.soak import inside
from c2l_lsp.bench.soak.bar import Finding, Task, percentile
from c2l_lsp.bench.soak.fixtures import sources
from c2l_lsp.bench.soak.proc import Editor, Engine, planted
from c2l_lsp.engine import wire

GRACE_S = 0.05


def run(task: Task) -> Finding:
    """Half of them at the engine, where the stop is timed; half at the server, where the replies are counted."""
    finding = Finding()
    _engine(task, finding, (task.count + 1) // 2)
    if not task.plant:
        _server(task, finding, task.count // 2)
    return finding


def _engine(task: Task, finding: Finding, count: int) -> None:
    dice, stops = random.Random(0), []  # noqa: S311
    text = sources()[0]
    with Engine(task.work, planted(task.plant, "engine")) as engine:
        hello = wire.Hello(schema=wire.SCHEMA, settings=inside.settings())
        engine.call("hello", hello, 180 * task.patience)
        warm = engine.call("complete", _long(text[:500], 16), 120 * task.patience)
        measured = wire.from_params(warm.result, wire.Completion)
        step = measured.ms.decode / 1e3 / max(measured.new_tokens, 1)
        for number in range(count):
            prefix = text[: 300 + 7 * (number % 40)]  # a short new part to read each time
            asked = engine.send("complete", _long(prefix, 400))
            time.sleep(dice.random() * 20 * step)
            sent = time.monotonic()
            engine.send("cancel", wire.Cancel(id=asked))
            finding.tried += 1
            try:
                at, reply = engine.reply(asked, 60 * task.patience)
            except TimeoutError as error:
                finding.fail(f"cancel {number}: {error}")
                return
            if at > sent:
                stops.append(at - sent)
                cancelled = reply.error is not None and reply.error[0] == "cancelled"
                finished = at - sent <= (4 * step + GRACE_S) * task.patience  # the answer was on its way already
                finding.expect(cancelled or finished, f"cancel {number}: answered as if it had not been cancelled")
    limit = (4 * step + GRACE_S) * task.patience  # a step may check four guessed tokens at once
    late = [stop for stop in stops if stop > limit]
    finding.expect(len(late) <= len(stops) // 100, f"{len(late)} stops later than {limit * 1e3:.0f} ms: {late[:5]}")
    finding.figures["stop_p50_ms"] = (percentile(stops, 0.5) * 1e3, "ms")
    finding.figures["stop_p99_ms"] = (percentile(stops, 0.99) * 1e3, "ms")
    finding.figures["decode_step_ms"] = (step * 1e3, "ms")


def _long(prefix: str, tokens: int) -> wire.Complete:
    return inside.question(None, "a.py", prefix, max_new_tokens=tokens, multiline="always", invoked=True, candidates=8)


def _server(task: Task, finding: Finding, count: int) -> None:
    dice = random.Random(1)  # noqa: S311
    uri = (task.work / "cancel.py").as_uri()
    with Editor(task.work) as editor:
        editor.initialize()
        editor.ready(180 * task.patience, adapter=False)
        editor.open(uri, sources()[1][:2000])
        asked = []
        for number in range(count):
            asked.append(editor.complete(uri, number % 40, 0))
            time.sleep(dice.random() * 0.3)
            editor.notify("$/cancelRequest", {"id": asked[-1]})
            finding.tried += 1
        last = time.monotonic()
        for number in asked:
            try:
                editor.reply(number, 30 * task.patience)
            except TimeoutError as error:
                finding.fail(str(error))
        twice = [number for number, found in editor.replies.items() if len(found) != 1]
        finding.expect(not twice, f"{len(twice)} requests with more than one reply")
        finding.figures["last_reply_s"] = (time.monotonic() - last, "s")
