"""Faults of an engine. Each function plants one in this process; its argument is the number after the name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any


def kept_open(_: str) -> None:
    """A closed folder is still watched."""
    from c2l_lsp.engine.adaptation import workspace_adapter

    workspace_adapter.WorkspaceAdapter.stop = lambda self: None  # type: ignore[method-assign]


def deaf(_: str) -> None:
    """The engine ignores cancellation."""
    from c2l_lsp.engine import inbox

    inbox.Inbox.is_cancelled = lambda self, request_id: False  # type: ignore[method-assign]


def piles(_: str) -> None:
    """A newer text of a buffer does not replace the queued one, and the engine is slow."""
    from c2l_lsp.engine import inbox, worker

    def box(self: Any, request: Any) -> list[Any]:
        del self
        return [request]

    inbox.Inbox._box = box  # type: ignore[method-assign]
    real = worker.Worker._on_buffer

    def slowly(self: Any, params: Any, request_id: int) -> None:
        time.sleep(0.2)
        real(self, params, request_id)

    worker.Worker._on_buffer = slowly  # type: ignore[assignment, method-assign]


def unseen(_: str) -> None:
    """Events of the watcher are lost without notice."""
    from c2l_lsp.engine.adaptation import reconcile_scheduler
    from c2l_lsp.repo.watching import watch

    watch.Watcher._on_events_lost = lambda self, loss: None  # type: ignore[method-assign]
    watch.Watcher._on_event = lambda self, event: None  # type: ignore[method-assign]
    reconcile_scheduler.RECONCILE_S = 1e9


def shrugs(_: str) -> None:
    """Lost events are noticed but ignored."""
    from c2l_lsp.engine.adaptation import reconcile_scheduler
    from c2l_lsp.repo.watching import watch

    watch.Watcher._on_events_lost = lambda self, loss: None  # type: ignore[method-assign]
    reconcile_scheduler.RECONCILE_S = 1e9


def leaks(_: str) -> None:
    """Every scan of a folder leaks a file descriptor."""
    from c2l_lsp.engine.adaptation import workspace_adapter

    real = workspace_adapter.WorkspaceAdapter._generation_stages

    def begin(self: Any, now: float) -> Any:
        os.open(os.devnull, os.O_RDONLY)
        return real(self, now)

    workspace_adapter.WorkspaceAdapter._generation_stages = begin  # type: ignore[method-assign]


def _at_call(number: str, happens: Callable[[], None]) -> None:
    """Call `happens` at the nth completion of this process."""
    from c2l_lsp.engine.completion import complete

    real = complete.Completer.complete
    left = [int(number)]

    def completed(self: Any, *args: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            happens()
        return real(self, *args, **more)

    complete.Completer.complete = completed  # type: ignore[method-assign]


def oom(number: str) -> None:
    """The device runs out of memory at the nth completion."""

    def happens() -> None:
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    _at_call(number, happens)


def cuda(number: str) -> None:
    """The device fails at the nth completion and at every later one."""
    from c2l_lsp.engine.completion import complete

    def happens() -> None:
        def lost(*_: Any, **__: Any) -> Any:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        complete.Completer.complete = lost  # type: ignore[method-assign]
        lost()

    _at_call(number, happens)


def nan(number: str) -> None:
    """From the nth completion on the model computes NaN."""

    def happens() -> None:
        from c2l_lsp.engine.completion import greedy

        real = greedy.GreedySelector.select

        def steps(self: greedy.GreedySelector, logits: Any, forced_prefix: bytes, first: int | None) -> Any:
            return real(self, logits * float("nan"), forced_prefix, first)

        greedy.GreedySelector.select = steps  # type: ignore[method-assign]

    _at_call(number, happens)


def die(number: str) -> None:
    """The process exits at the nth completion."""
    _at_call(number, lambda: os._exit(9))


def hang(number: str) -> None:
    """The engine's loop hangs at the nth completion."""

    _at_call(number, lambda: time.sleep(1e6))


def resigned(_: str) -> None:
    """A failed save is never tried again."""
    from c2l_lsp.engine.adaptation import persistence

    persistence.RETRY_S = 1e9


def census(_: str) -> None:
    """No fault: write every computed completion and the texts of every generation to the file C2L_SOAK_NOTES."""
    from c2l_lsp.engine.adaptation import workspace_adapter
    from c2l_lsp.engine.completion import complete

    out = os.open(os.environ["C2L_SOAK_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    computes: Any = complete.Completer.complete
    publishes: Any = workspace_adapter.WorkspaceAdapter._publish

    def completed(self: complete.Completer, *args: Any, **more: Any) -> Any:
        answer = computes(self, *args, **more)
        os.write(out, f"completed {time.monotonic()!r}\n".encode())
        return answer

    def published(self: workspace_adapter.WorkspaceAdapter, *args: Any) -> None:
        publishes(self, *args)
        learned = "".join(f"learned - {path} {digest.hex()}\n" for path, digest in self.text_digests().items())
        os.write(out, f"published {time.monotonic()!r}\n{learned}".encode())

    complete.Completer.complete = completed  # type: ignore[method-assign]
    workspace_adapter.WorkspaceAdapter._publish = published  # type: ignore[assignment, method-assign]


def dawdles(_: str) -> None:
    """A completion takes 6 s."""
    from c2l_lsp.engine.completion import complete

    real: Any = complete.Completer.complete

    def slowly(*args: Any, **more: Any) -> Any:
        time.sleep(6.0)
        return real(*args, **more)

    complete.Completer.complete = slowly  # type: ignore[method-assign]


def unlearning(_: str) -> None:
    """The texts of unsaved buffers are not learned."""
    from c2l_lsp.engine.adaptation import workspace_adapter

    workspace_adapter.WorkspaceAdapter.set_buffer = lambda self, path, text: None  # type: ignore[method-assign]


def nosy(_: str) -> None:
    """A folder is opened as a trusted one."""
    import msgspec

    from c2l_lsp.engine import engine, wire

    real: Any = engine.Engine.open_folder

    def opened(self: engine.Engine, request: wire.OpenFolder) -> Any:
        return real(self, msgspec.structs.replace(request, trusted=True))

    engine.Engine.open_folder = opened  # type: ignore[method-assign]


def keeps(_: str) -> None:
    """The texts of an untrusted folder's open documents are stored."""
    from c2l_lsp.config import state_root
    from c2l_lsp.engine.workspaces import InactiveWorkspace

    def set_buffer(self: InactiveWorkspace, path: str, text: str | None) -> None:
        root = state_root()
        root.mkdir(parents=True, exist_ok=True)
        (root / "buffer").write_text(f"{path} {text}", encoding="utf-8")

    InactiveWorkspace.set_buffer = set_buffer  # type: ignore[method-assign]
