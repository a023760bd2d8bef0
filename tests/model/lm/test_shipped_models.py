"""The shipped models load offline and predict Python, the larger one better; `auto` chooses by the hardware."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from c2l_lsp.config import Model
from c2l_lsp.model.lm import base, fast_loader
from c2l_lsp.model.runtime import hardware

TEXT = Path(base.__file__).with_name("token_healing.py").read_text(encoding="utf-8")


@torch.inference_mode()
def bits_per_byte(name: str) -> float:
    model = base.load(Model(id=name))
    ids = [model.start_id, *model.encode(TEXT)][:700]
    rows = torch.tensor([ids])
    logits = model.logits(model.hidden(rows[:, :-1])[0]).float()
    total = torch.nn.functional.cross_entropy(logits, rows[0, 1:], reduction="sum")
    return float(total) / 0.6931 / len(model.decode(ids[1:]).encode())


def test_larger_model_predicts_unseen_text_better() -> None:
    found = {name: bits_per_byte(name) for name in base.SHIPPED}
    assert found["c2l-nano"] < 1.5
    assert found["c2l-small"] < found["c2l-nano"] - 0.05, found


@pytest.mark.parametrize("name", base.SHIPPED)
def test_shipped_model_has_a_card_and_fim_tokens(name: str) -> None:
    assert base.load(Model(id=name)).fim is not None
    card = (base.ASSETS / name / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0")
    assert f"# {name}\n" in card


@pytest.mark.parametrize(
    ("fast_cores", "cores", "omp_threads", "name"),
    [
        (True, 1, "", base.NANO),  # one core for both the editor and the model
        (True, 2, "", base.SMALL),
        (True, 8, "1", base.SMALL),
        (False, 2, "", base.NANO),
        (False, 3, "", base.NANO),
        (False, 4, "", base.SMALL),
        (False, 8, "1", base.NANO),
        (False, 1, "", base.NANO),
        (False, 2, "3", base.SMALL),
    ],
)
def test_auto_chooses_the_larger_model_on_fast_hardware(
    fast_cores: bool, cores: int, omp_threads: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "has_fast_cores", lambda: fast_cores)
    monkeypatch.setenv("OMP_NUM_THREADS", omp_threads)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: cores)
    assert base.resolve_auto(Model(device="cpu")).id == name


def test_hardware_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 4 if logical else 2)
    monkeypatch.setattr(base, "has_fast_cores", lambda: False)
    assert base.resolve_auto(Model(device="cpu")).id == base.NANO


@pytest.mark.parametrize(
    ("bf16", "built", "capability", "found"),
    [
        (True, False, "AVX512", True),
        (False, True, "AVX2", True),
        (False, True, "AVX512", True),
        (False, False, "AVX2", False),
        (False, True, "DEFAULT", False),
    ],
)
def test_fast_cores_multiply_bf16_or_int8(
    bf16: bool, built: bool, capability: str, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(hardware.kernel, "is_available", lambda: built)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert hardware.has_fast_cores() is found


def test_configured_model_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert base.resolve_auto(Model(id=base.SMALL)).id == base.SMALL
    assert base.resolve_auto(Model(path="/somewhere")).id == base.AUTO  # a path takes precedence


def test_auto_chooses_the_larger_model_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert base.resolve_auto(Model()).id == base.SMALL


def test_both_loaders_resolve_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert base.load(Model()).id == fast_loader.load(Model()).id == base.NANO
