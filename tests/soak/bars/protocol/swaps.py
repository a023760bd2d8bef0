"""Adapters are swapped between and during completions: each completion uses one, scores equal a fresh load."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.soak.harness import in_process
from tests.soak.harness.bar import Finding, Task
from tests.soak.harness.sources import project, sources

if TYPE_CHECKING:
    from c2l_lsp.engine.session import Session

TOLERANCE = 1e-3
"""Allowed difference in nat per token between a swapped and a freshly loaded adapter (rounding)."""


def run(task: Task) -> Finding:
    """Random swaps between four adapters, half of them during a completion."""
    import torch

    from c2l_lsp.engine.session import Session

    torch.manual_seed(0)
    finding = Finding()
    root = project(task.work / "project", 2)
    prompts = [text[:400] for text in sources()[:3]]
    settings = in_process.settings(adapter={"updateDelayMs": 60000, "maxDelayMs": 60000})
    with in_process.state_in(task.work / "state"), Session(settings) as session:
        session.open(root)
        adapters = _adapters(session.engine.model)
        with Session(settings) as fresh:
            wanted = [[_score(fresh, adapter, prompt) for prompt in prompts] for adapter in adapters]
        restore = _plant(task)
        try:
            worst = _swap(task, finding, session, root, adapters, prompts, wanted)
        finally:
            restore()
    finding.figures["largest_difference"] = (worst, "nat/token")
    return finding


def _swap(
    task: Task,
    finding: Finding,
    session: Session,
    root: Path,
    adapters: list[Any],
    prompts: list[str],
    wanted: list[Any],
) -> float:
    from c2l_lsp.engine import wire
    from c2l_lsp.engine.adaptation.adapter_state import LiveAdapter

    rng, worst = random.Random(0), 0.0
    workspace = session.engine.workspace(str(root))
    for number in range(1, task.count + 1):
        which, prompt = rng.randrange(len(adapters)), rng.randrange(len(prompts))
        other = adapters[rng.randrange(len(adapters))]
        workspace.live = LiveAdapter(number, adapters[which], f"soak#{number}")
        asked = in_process.completion_request(root, "pkg0/m0.py", prompts[prompt], max_new_tokens=3)

        def swapped(other: Any = other, number: int = number) -> bool:
            workspace.live = LiveAdapter(-number, other, "elsewhere")  # a swap during the completion
            return False

        answer = session.engine.complete(asked, swapped if number % 2 else lambda: False)
        finding.tried += 1
        finding.expect(answer.generation == number, f"swap {number}: generation {answer.generation}")
        workspace.live = LiveAdapter(number, adapters[which], f"soak#{number}")
        scored = session.engine.score(
            wire.Score(folder=str(root), prefix=prompts[prompt][:-40], suffix="", text=prompts[prompt][-40:])
        )
        off = abs(scored.logprob - wanted[which][prompt]) / max(scored.tokens, 1)
        worst = max(worst, off)
        finding.expect(off <= TOLERANCE, f"swap {number}: {off:.4f} nat/token from a fresh load")
    return worst


def _score(session: Session, adapter: Any, prompt: str) -> float:
    """The log-probability with a freshly loaded adapter."""
    from c2l_lsp.engine import wire

    asked = wire.Score(folder="", prefix=prompt[:-40], suffix="", text=prompt[-40:])
    session.engine._slot.activate(adapter)
    found = session.engine._completer.score(asked, generation=0, adapters=session.engine._slot)
    return float(found.logprob)


def _adapters(model: Any) -> list[Any]:
    """No adapter, two final maps, and a final map with a LoRA pair."""
    import torch

    from c2l_lsp.model.adapter.lora import Adapter
    from c2l_lsp.model.runtime.lora_pair import LoraPair

    maps = [0.05 * torch.randn(model.d, model.d) for _ in range(3)]
    name, inner = next((n, m) for n, m in model.lm.named_modules() if n.endswith("q_proj"))
    pair = LoraPair(0.1 * torch.randn(4, inner.weight.shape[1]), 0.1 * torch.randn(inner.weight.shape[0], 4))
    plain = [Adapter(model.digest, "soak", one) for one in maps[:2]]
    return [None, *plain, Adapter(model.digest, "soak", maps[2], {name: pair})]


def _plant(task: Task) -> Any:
    """The planted fault: every third swap keeps the previous final map."""
    from c2l_lsp.model.adapter.lora import AdapterSlot

    real, calls = AdapterSlot.activate, [0]

    def use(self: AdapterSlot, adapter: Any) -> None:
        calls[0] += 1
        before = self._final
        real(self, adapter)
        if calls[0] % 3 == 0:
            self._final = before

    if task.planted("half"):
        AdapterSlot.activate = use  # type: ignore[method-assign]

    def restore() -> None:
        AdapterSlot.activate = real  # type: ignore[method-assign]

    return restore
