"""Each command as a user runs it, with the shipped model, on a small repository."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from c2l_lsp import __version__, cli

COUNTER = """
class Counter:
    def __init__(self):
        self.words = {}

    def add_word(self, word):
        self.words[word] = self.words.get(word, 0) + 1
        return self.words[word]
"""

PRICES = """
def net_price(gross, rate):
    return gross / (1 + rate)


def gross_price(net, rate):
    return net * (1 + rate)
"""

BASKET = """
from shop.prices import gross_price


def basket_total(basket, rate):
    return sum(gross_price(item.net, rate) for item in basket)
"""

TEST = """
from shop.prices import net_price


def test_net_price():
    assert net_price(119, 0.19) == 100
"""

FILES = {
    "shop/__init__.py": "SHOP = 'a shop'\n",
    "shop/counter.py": COUNTER,
    "shop/prices.py": PRICES,
    "shop/basket.py": BASKET,
    "tests/test_prices.py": TEST,
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "shop-repository"
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=root, check=True)
    return root


class Run:
    """Runs a command in this process, as the console script would."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch
        self.code, self.out, self.err = 0, "", ""

    def __call__(self, *arguments: object) -> str:
        self._monkeypatch.setattr(sys, "argv", ["c2l-lsp", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        self.code = int(ended.value.code or 0)
        self.out, self.err = self._capsys.readouterr()
        return self.out

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(capsys, monkeypatch)


# --- without a model -------------------------------------------------------------------------------------------------


COMMANDS = ("serve", "complete", "adapt", "status", "forget", "doctor", "models")
MOVED_COMMANDS = ("bench", "train", "corpus")


def test_help_lists_every_command(run: Run):
    text = run("--help")
    assert run.code == 0
    for name in COMMANDS:
        assert f" {name} " in text
    for name in MOVED_COMMANDS:
        assert f" {name} " not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str):
    text = run(command, "--help")
    assert run.code == 0
    assert "Usage" in text


@pytest.mark.parametrize("command", MOVED_COMMANDS)
@pytest.mark.parametrize("arguments", [(), ("lines", "--seed", "1"), ("--help",)])
def test_command_that_moved_to_the_lab_prints_its_new_name(run: Run, command: str, arguments: tuple[str, ...]):
    run(command, *arguments)
    assert run.code == 2
    assert run.out == ""
    assert run.err == (
        f"c2l-lsp: `c2l-lsp {command}` is now `c2l-lab {command}`. Install the c2l-lab distribution (lab/) to run it.\n"
    )


def test_command_line_imports_neither_torch_nor_the_lab():
    code = "import sys, c2l_lsp.cli; print(sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert "c2l_lsp" in loaded
    assert not loaded & {"torch", "transformers", "c2l_lab"}


def test_version(run: Run):
    assert run("--version") == f"c2l-lsp {__version__}\n"


def test_python_m_runs_the_same_program():
    done = subprocess.run(
        [sys.executable, "-m", "c2l_lsp", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"c2l-lsp {__version__}\n"


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("shop/counter.py", "is not of the form FILE:LINE:COL"),
        ("shop/counter.py:one:two", "is not of the form FILE:LINE:COL"),
        ("shop/none.py:1:1", "cannot be read"),
        ("shop/counter.py:999:1", "has no line 999"),
        ("shop/counter.py:1:0", "has no line 1, column 0"),
        ("shop:1:1", "cannot be read"),
    ],
)
def test_invalid_position_prints_one_sentence(run: Run, shop: Path, where: str, sentence: str):
    run("complete", shop / where)
    assert run.code == 2
    assert sentence in run.err
    assert run.err.count("\n") == 1
    assert run.out == ""


def test_status_and_forget_without_state(run: Run, tmp_path: Path):
    assert run.json("status")["folders"] == []
    assert "There is no saved state" in run("forget", tmp_path)
    assert run.code == 0


# --- with the shipped model ------------------------------------------------------------------------------------------


def test_complete_prints_json(run: Run, shop: Path):
    place = f"{shop / 'shop/counter.py'}:8:15"
    adapted = run.json("complete", place)
    assert (run.code, run.err) == (0, "")
    bare = run.json("complete", place, "--no-adapter")
    for answer in (adapted, bare):
        assert isinstance(answer["text"], str)
        assert set(answer["ms"]) == {"prefill", "decode", "total"}
        assert all(isinstance(value, float) and value >= 0 for value in answer["ms"].values())
        assert answer["ms"]["total"] >= max(answer["ms"]["prefill"], answer["ms"]["decode"])
        assert 0 < answer["new_tokens"] <= 64
    assert adapted["generation"] == 1
    assert adapted["adapter"]["files"] == len(FILES)
    assert (bare["generation"], bare["adapter"]) == (0, None)
    assert adapted["prompt_tokens"] == bare["prompt_tokens"] > 0


def test_complete_is_deterministic_and_restores_its_state(run: Run, shop: Path):
    place = f"{shop / 'shop/prices.py'}:3:12"
    first, second = run.json("complete", place), run.json("complete", place)
    for key in ("text", "generation", "prompt_tokens", "new_tokens", "adapter"):
        assert first[key] == second[key], key


def test_complete_without_json_prints_the_text_only(run: Run, shop: Path):
    place = f"{shop / 'shop/prices.py'}:3:12"
    answer = run.json("complete", place, "--no-adapter", "--max-new-tokens", 8)
    assert run("complete", place, "--no-adapter", "--max-new-tokens", 8).strip() in (
        answer["text"].strip(),
        f"({answer['reason']})",
    )


def test_status_lists_the_saved_state_and_forget_deletes_it(run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "240")  # so that paths are not wrapped
    run.json("complete", f"{shop / 'shop/prices.py'}:3:12")
    (row,) = run.json("status")["folders"]
    assert (row["folder"], row["generation"], row["files"], row["readable"]) == (str(shop), 1, len(FILES), True)
    assert row["mb"] > 0
    assert str(shop) in run("status")
    assert "Deleted the state of" in run("forget", shop)
    assert run.json("status")["folders"] == []


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")  # the head is adapted, not the embedding
@pytest.mark.parametrize("rank", [0, 4])
def test_peft_loads_the_exported_adapter_with_the_logits_of_the_engine(run: Run, shop: Path, tmp_path: Path, rank: int):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from c2l_lsp.config import Model
    from c2l_lsp.engine.session import Session
    from c2l_lsp.model.adapter.lora import AdapterSlot
    from c2l_lsp.model.lm.base import ASSETS, resolve_auto

    out = tmp_path / "adapter"
    report = run.json("adapt", shop, "--out", out, "--rank", rank)
    assert run.code == 0, run.err
    assert {file.name for file in out.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert report["generation"] == 1
    assert report["files"] == len(FILES)

    ids = torch.tensor([list(range(5, 37))])
    plain = AutoModelForCausalLM.from_pretrained(ASSETS / resolve_auto(Model()).id, dtype=torch.float32)
    with torch.inference_mode():
        without = plain(ids).logits
        with_peft = PeftModel.from_pretrained(plain, out)(ids).logits
    with Session(_fp32()) as session:
        session.open(shop)
        slot = AdapterSlot(session.engine.model)
        slot.activate(session.engine.workspace(str(shop)).live.adapter)
        with torch.inference_mode():
            ours = slot.logits(session.engine.model.hidden(ids))
    error = float((with_peft - ours).norm() / (ours - without).norm())
    if rank == 0:
        assert report["relative_error"] < 1e-4
        assert error < 1e-3
    else:
        assert report["rank"] == rank
        assert 0 < report["relative_error"] < 1
        assert error < 1


def _fp32() -> Any:
    from c2l_lsp.config import Settings, merge

    settings, errors = merge(Settings(), {"model.dtype": "float32", "model.device": "cpu"}, source="", machine=True)
    assert not errors
    return settings


def test_doctor_finds_no_problem(run: Run):
    checks = run.json("doctor")
    assert not [check for check in checks if not check["ok"]]
    assert run.code == 0
    names = {check["name"] for check in checks}
    assert names == {"python", "packages", "git", "settings", "state", "memory", "watching", "models", "model"}


def test_models_lists_and_measures_the_shipped_ones(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    monkeypatch.setattr("c2l_lsp.model.gguf_format.sources._lm_studio_roots", lambda: [tmp_path])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("c2l_lsp.engine.session._SPEED_RUNS", 2)
    rows = run.json("models", "--measure")
    assert [row["name"] for row in rows] == ["c2l-nano", "c2l-small"]
    assert all(row["fim"] and not row["note"] and row["ready"] and 0 < row["ms_a_token"] < 1000 for row in rows)
    assert "c2l-nano" in run("models")


def test_doctor_names_problems_and_fixes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "config.toml"
    config.write_text(f'[model]\npath = "{tmp_path.as_posix()}"\n[completion]\nfoo = 1\n', encoding="utf-8")
    monkeypatch.setenv("C2L_CONFIG", str(config))
    found = {check["name"]: check for check in run.json("doctor")}
    assert run.code == 1
    assert "c2l.completion.foo" in found["settings"]["text"]
    assert "holds no config.json" in found["model"]["text"]
    for name in ("settings", "model"):
        assert not found[name]["ok"]
        assert found[name]["fix"]
    text = run("doctor")
    assert "FAIL model" in text
    assert "→" in text
