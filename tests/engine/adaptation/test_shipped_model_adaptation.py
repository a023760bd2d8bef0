"""The shipped model adapts: an edit makes a new name more likely, its revert less likely, at no prompt cost.

The workspace is a part of the standard library: its text does not change with this project.
"""

from __future__ import annotations

import email
import json
import re
import shutil
import time
from pathlib import Path

import pytest

from c2l_lsp.config import Settings, merge
from c2l_lsp.engine import wire
from c2l_lsp.engine.adaptation.registry import shipped_prior
from c2l_lsp.engine.session import Session
from c2l_lsp.model.lm.base import ASSETS, NANO

LEFT_OUT = ("__pycache__", "_header_value_parser.py")  # the second is a third of the package
NAME = "fold_parcel_ledger"
EDIT = f'''

def {NAME}(ledger, parcels):
    """Fold parcels into a ledger."""
    for parcel in parcels:
        ledger.add(parcel)
    return ledger


def first_use(ledger):
    return {NAME}(ledger, [])


def second_use(ledger, parcels):
    total = {NAME}(ledger, parcels)
    return total
'''
CURSOR = "from .ledger import Ledger\n\n\ndef close_month(ledger, parcels):\n    ledger = "


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("main-job") / "project"
    for package in (json, email):
        source = Path(package.__file__).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    values = {"adapter": {"updateDelayMs": 20, "maxDelayMs": 200}, "model": {"id": NANO}}
    settings, errors = merge(Settings(), values, source="test", machine=True)
    assert not errors
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("C2L_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        with Session(settings) as opened:
            opened.open(folder)
            opened.folder = folder
            yield opened


def likelihood(session, text: str = NAME, adapter: bool = True) -> float:
    request = wire.Score(folder=str(session.folder), prefix=CURSOR, suffix="", text=text, adapter=adapter)
    return session.engine.score(request).logprob


def settle(session, generation: int) -> None:
    workspace = session.engine.workspace(str(session.folder))
    deadline = time.monotonic() + 60
    while workspace.info().generation < generation or workspace.pending:
        assert time.monotonic() < deadline, workspace.info()
        due = workspace.due_in(time.monotonic())
        if due is not None and due <= 0:
            session.engine.idle_step()
        else:
            time.sleep(0.01)


def test_shipped_model_has_a_prior(session):
    assert shipped_prior(session.engine.model) is not None
    info = session.engine.workspace(str(session.folder)).info()
    assert (info.kind, info.state) == ("memory", "ready")
    assert info.scale > 0, info.message


def test_edit_makes_its_name_more_likely_and_revert_less_likely(session):
    path = session.folder / "email" / "iterators.py"
    text = path.read_text(encoding="utf-8")
    generation = session.engine.workspace(str(session.folder)).info().generation
    before = likelihood(session)
    path.write_text(text + EDIT, encoding="utf-8")
    settle(session, generation + 1)
    after = likelihood(session)
    path.write_text(text, encoding="utf-8")
    settle(session, generation + 2)
    reverted = likelihood(session)
    assert after > before + 1.0, (before, after, reverted)
    assert reverted < after - 1.0, (before, after, reverted)
    # the recency term remembers the removal: the name ends below its start, at most as far as the edit raised it
    assert abs(reverted - before) < after - before, (before, after, reverted)


def test_rename_changes_the_likelihood_of_both_names(session):
    path = session.folder / "email" / "message.py"
    text = path.read_text(encoding="utf-8")
    old, new = "parameter", "tableau"
    generation = session.engine.workspace(str(session.folder)).info().generation
    before = {name: likelihood(session, name) for name in (old, new)}
    path.write_text(re.sub(rf"\b{old}\b", new, text), encoding="utf-8")
    settle(session, generation + 1)
    after = {name: likelihood(session, name) for name in (old, new)}
    path.write_text(text, encoding="utf-8")
    settle(session, generation + 2)
    assert after[new] > before[new]
    assert after[old] < before[old]


def test_new_name_is_completed_where_it_is_imported_next(session):
    """Two files import a name that a third just defined: the next import from it is completed with that name."""
    texts = {
        "json/parcels.py": EDIT.lstrip(),
        "json/months.py": f"from .parcels import {NAME}\n\n\ndef month(ledger):\n    return {NAME}(ledger, [])\n",
        "json/years.py": f"from .parcels import {NAME}\n\n\ndef year(ledger):\n    return {NAME}(ledger, [])\n",
    }

    def offered() -> str:
        request = wire.Complete(
            folder=str(session.folder), path="json/weeks.py", language="python", multiline="never",
            prefix='"""Weeks."""\n\nfrom .parcels import ', suffix="\n", max_new_tokens=16, max_latency_ms=60000,
        )  # fmt: skip
        return "".join(session.complete(request).texts[:1]).strip()

    generation = session.engine.workspace(str(session.folder)).info().generation
    before = offered()
    for name, text in texts.items():
        (session.folder / name).write_text(text, encoding="utf-8")
    settle(session, generation + 1)
    after = offered()
    for name in texts:
        (session.folder / name).unlink()
    workspace = session.engine.workspace(str(session.folder))
    settle(session, workspace.info().generation + 1)
    assert (before != NAME, after) == (True, NAME), (before, after)
    assert offered() != NAME


def test_adapter_costs_no_prompt_tokens(session):
    def ask(adapter: bool) -> wire.Completion:
        return session.complete(
            wire.Complete(
                folder=str(session.folder), path="x.py", language="python", prefix=CURSOR, suffix="\n", adapter=adapter,
                max_latency_ms=20_000, max_new_tokens=8,
            )
        )  # fmt: skip

    assert ask(True).prompt_tokens == ask(False).prompt_tokens


def test_export_reproduces_the_logits_of_the_engine(session, tmp_path):
    import warnings

    import peft
    import torch
    from transformers import AutoModelForCausalLM

    name = str(session.folder)
    done = session.engine.export(wire.Export(folder=name, out=str(tmp_path / "out")))
    assert done.error < 1e-6
    live = session.engine.workspace(name).live.adapter
    lm = AutoModelForCausalLM.from_pretrained(ASSETS / NANO, dtype=torch.float32).eval()
    ids = torch.tensor([session.engine.model.encode(EDIT)])
    with torch.inference_mode():
        hidden = lm.base_model(ids).last_hidden_state
        ours = lm.lm_head(hidden + hidden @ live.final_map.T)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings")  # the head is adapted, not the embedding
            theirs = peft.PeftModel.from_pretrained(lm, tmp_path / "out")(ids).logits
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)
