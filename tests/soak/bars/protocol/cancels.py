"""Cancellation at random times: one reply per request, and the engine starts no further step.

The engine records the start and end of every step. The criterion is that no decode step starts later than 50 ms after
the cancellation, which is independent of the duration of a step. A started prefill is finished; its longest duration is
reported as a value of its own.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from c2l_lsp.engine import wire
from tests.soak.harness import in_process
from tests.soak.harness.bar import Finding, Task, percentile
from tests.soak.harness.sources import sources
from tests.support.processes import engine_command, server_command, start_engine, start_server

GRACE_S = 0.05
STEP_MS = 40
"""Minimum duration of a step of the engine in this bar."""

SERVER_FAULTS = ("forget",)


def run(task: Task) -> Finding:
    """Half at the engine, where the time to stop is measured; half at the server, where replies are counted."""
    finding = Finding()
    if task.plant not in SERVER_FAULTS:
        _engine(task, finding, (task.count + 1) // 2)
    if not task.plant or task.plant in SERVER_FAULTS:
        _server(task, finding, max(task.count // 2, 12 if task.plant else 0))
    return finding


def _engine(task: Task, finding: Finding, count: int) -> None:
    rng, stops, cancels = random.Random(0), [], []
    text, notes = sources()[0], task.work / "steps"
    faults = f"steps:{STEP_MS}" + (f"+{task.plant}" if task.plant else "")
    with start_engine(task.work, engine_command(faults), C2L_SOAK_NOTES=str(notes)) as engine:
        engine.hello(in_process.settings(), 180 * task.patience)
        engine.call("complete", _long(text[:500], 16), wire.Completion, 120 * task.patience)
        step = percentile([ended - began for kind, began, ended in _steps(notes) if kind == "step"], 0.5)
        for number in range(count):
            prefix = text[: 300 + 7 * (number % 40)]  # a short new part to prefill each time
            asked = engine.send("complete", _long(prefix, 400))
            time.sleep(rng.random() * 8 * step)
            sent = time.monotonic()
            engine.send("cancel", wire.Cancel(id=asked))
            finding.tried += 1
            try:
                at, reply = engine.reply(asked, 60 * task.patience)
            except TimeoutError as error:
                finding.fail(f"cancel {number}: {error}", late=True)
                return
            cancels.append((sent, at))
            if reply.error is not None and reply.error[0] == "cancelled":
                stops.append(at - sent)
    _judge(task, finding, cancels, _steps(notes))
    finding.figures["stopped"] = (float(len(stops)), "cancels")
    finding.figures["stop_p50_ms"] = (percentile(stops, 0.5) * 1e3, "ms")
    finding.figures["stop_p99_ms"] = (percentile(stops, 0.99) * 1e3, "ms")
    finding.figures["decode_step_ms"] = (step * 1e3, "ms")


def _judge(
    task: Task, finding: Finding, cancels: list[tuple[float, float]], steps: list[tuple[str, float, float]]
) -> None:
    """No decode step starts later than the grace time after the cancellation, and the reply follows the last step."""
    grace = GRACE_S * task.patience
    reads = []
    for number, (sent, at) in enumerate(cancels):
        within = [one for one in steps if sent < one[2] and one[1] < at]
        late = [began - sent for kind, began, _ in within if kind == "step" and began > sent + grace]
        under_way = [ended for kind, began, ended in within if kind == "read" and began <= sent + grace]
        if under_way:  # a prefill was running; no step may follow it
            reads.append(max(under_way) - sent)
            late = [began for began in late if began + sent > max(under_way) + grace]
        finding.expect(
            not late,
            f"cancel {number}: {len(late)} steps started {max(late, default=0.0) * 1e3:.0f} ms later",
            late=True,
        )
        last = max((ended for _, _, ended in within), default=sent)
        finding.expect(
            at - last <= grace,
            f"cancel {number}: the reply came {(at - last) * 1e3:.0f} ms after the last step",
            late=True,
        )
    finding.figures["read_to_its_end_max_ms"] = (max(reads, default=0.0) * 1e3, "ms")


def _steps(notes: Path) -> list[tuple[str, float, float]]:
    """Kind, start and end of each step that the engine recorded."""
    rows = [line.split() for line in notes.read_text(encoding="ascii").splitlines()] if notes.exists() else []
    return [(kind, float(began), float(ended)) for kind, began, ended in rows]


def _long(prefix: str, tokens: int) -> wire.Complete:
    return in_process.completion_request(
        None, "a.py", prefix, max_new_tokens=tokens, multiline="always", invoked=True, candidates=8
    )


def _server(task: Task, finding: Finding, count: int) -> None:
    rng = random.Random(1)
    uri = (task.work / "cancel.py").as_uri()
    with start_server(task.work, server_command(task.plant)) as editor:
        editor.initialize()
        editor.ready(180 * task.patience)
        editor.open(uri, sources()[1][:2000])
        asked = []
        for number in range(count):
            asked.append(editor.send_completion(uri, number % 40, 0))
            time.sleep(rng.random() * (0.01 if task.plant else 0.3))
            editor.notify("$/cancelRequest", {"id": asked[-1]})
            finding.tried += 1
        last = time.monotonic()
        for number in asked:
            try:
                editor.reply(number, (2 if task.plant else 30) * task.patience)
            except TimeoutError as error:
                finding.fail(str(error), late=True)
        twice = [number for number, found in editor.replies.items() if len(found) != 1]
        finding.expect(not twice, f"{len(twice)} requests with more than one reply")
        finding.figures["last_reply_s"] = (time.monotonic() - last, "s")
