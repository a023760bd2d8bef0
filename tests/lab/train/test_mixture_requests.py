"""Completion requests with known answers: they are what the engine asks the model and the memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from c2l_lab.repositories.spans import Span
from c2l_lab.train.memory import mixture_fit, mixture_requests, mixture_rows
from c2l_lab.train.memory.mixture_rows import Sizes

from c2l_lsp.config import Model
from c2l_lsp.engine import wire
from c2l_lsp.engine.completion.complete import Completer
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm import base
from c2l_lsp.model.runtime.kernel import MAX_CONTEXT

DOCUMENT = "import os\n\n\ndef total(values):\n    return sum_of(values, os.sep)\n\n\nprint(total([1, 2]))\n"
WORD = DOCUMENT.index("sum_of") + 3  # within a word: its first letters are withheld from the prompt and forced
END = DOCUMENT.index("\n", WORD)


@pytest.fixture(scope="module", params=["psm", "joined"])
def model(request: pytest.FixtureRequest, tiny_folder: Path) -> base.BaseModel:
    made = base.load(Model(path=str(tiny_folder), dtype="float32", device="cpu"))
    assert made.fim is not None
    return replace(made, fim=replace(made.fim, order=request.param))


def made(model: base.BaseModel) -> mixture_requests.Request:
    found = mixture_requests.request(
        model, DOCUMENT, Span("a.py", WORD, END, "other"), mixture_requests.line_ends(model)
    )
    assert found is not None
    return found


def test_targets_are_the_answer_and_then_all_tokens_that_end_a_line(model: base.BaseModel) -> None:
    found = made(model)
    *answer, ends = found.targets
    assert model.decode([token for (token,) in answer]) == " sum_of(values, os.sep)"  # the word is healed
    assert found.ids[-len(answer) :] == [token for (token,) in answer]
    assert model.stops <= set(ends) and model.encode("\n")[0] in ends and model.encode("a")[0] not in ends


def test_memory_sees_the_text_before_the_answer_and_no_other_token(model: base.BaseModel) -> None:
    found = made(model)
    for tail, count in zip(found.before, range(len(found.targets)), strict=True):
        written = " sum_of(values, os.sep)" if count == len(found.targets) - 1 else None
        text = model.decode(list(tail))
        assert DOCUMENT.startswith(text) and (written is None or text.endswith(written))
        assert "print" not in text and len(tail) <= MAX_CONTEXT


def test_engine_asks_the_memory_with_the_same_tokens(model: base.BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder is led along the answer: every position must be looked up with the tails that rows are made of."""
    found, slot = made(model), AdapterSlot(model)
    answer = [token for (token,) in found.targets[:-1]]
    asked: list[list[int]] = []

    def mix(hidden, logits, before):
        asked.extend([*tail] for tail in before)
        rows = logits.clone().fill_(0.0)
        for row in range(len(before)):
            at = len(asked) - len(before) + row
            rows[row, answer[at] if at < len(answer) else model.encode("\n")[0]] = 9.0
        return rows

    monkeypatch.setattr(slot, "mix_knn", mix)
    request = wire.Complete(
        folder="", path="a.py", language="python", prefix=DOCUMENT[:WORD], suffix=DOCUMENT[END:], multiline="never",
        max_new_tokens=32, max_latency_ms=600_000, max_context_tokens=1536,
    )  # fmt: skip
    completion = Completer(model, Decoder(model, slot, draft=0)).complete(
        request, generation=0, kv_key="", cancelled=lambda: False
    )
    assert completion.texts == ["_of(values, os.sep)"]
    assert asked[: len(found.before)] == [[*tail] for tail in found.before]


def test_rows_of_requests_are_tagged_and_count_as_much_as_windows(tiny, sources: list[str]) -> None:
    *some, longest = sorted((text for text in sources if len(text) > 4000), key=len)
    texts = mixture_rows.HeldOut({f"m{i}.py": text for i, text in enumerate(some[:3])}, {"t.py": longest})
    sizes = Sizes(long_windows=1, short_windows=1, requests=3, keyed=2000)
    rows = mixture_rows.collect(tiny, mixture_fit.untrained(), texts, sizes, "seed")
    of_requests = rows.form == mixture_rows.FORMS.index("request")
    assert 9 <= of_requests.sum() < (~of_requests).sum()
    shares = mixture_fit._shares(rows)
    assert shares[of_requests].sum() == pytest.approx(0.5) and shares.sum() == pytest.approx(1)
    assert mixture_fit._shares(rows.where(~of_requests)).sum() == pytest.approx(1)
    without = mixture_rows.collect(tiny, mixture_fit.untrained(), texts, replace(sizes, requests=0), "seed")
    assert not without.form.any() and np.array_equal(without.target, rows.where(~of_requests).target)
