"""Error messages, and that completions continue after an error wherever possible."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from c2l_lsp import cli, errors
from c2l_lsp.config import Adapter, Model, Settings
from c2l_lsp.engine import wire

TEXT = "def net_price(gross, rate):\n    return gross / (1 + rate)\n"


# --- the classes -----------------------------------------------------------------------------------------------------


def test_every_code_maps_to_its_class():
    kinds = [kind for kind in errors.C2LError.__subclasses__() if kind.__module__ == errors.__name__]
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        crossed = errors.from_code(kind.code, "A sentence.")
        assert type(crossed) is kind
        assert str(crossed) == "A sentence."
        assert kind.__doc__
    assert type(errors.from_code("of a newer version", "x")) is errors.EngineError


# --- a folder in the engine ------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tiny_folder: Path) -> Settings:
    return Settings(model=Model(path=str(tiny_folder), device="cpu"), adapter=Adapter(update_delay_ms=0))


def _open_and_complete(
    settings: Settings, folder: Path
) -> tuple[list[wire.Trouble], wire.AdapterInfo, wire.Completion]:
    """Open a folder; returns its warnings, its adapter and a completion in it."""
    from c2l_lsp.engine.session import Session

    events: list[Any] = []
    with Session(settings, events.append) as session:
        info = session.open(folder)
        request = wire.Complete(
            folder=str(folder.resolve()), path="a.py", language="python", prefix="def total(", suffix="",
            invoked=True, max_new_tokens=4, max_latency_ms=60000,
        )  # fmt: skip
        answer = session.complete(request)
    return [event for event in events if isinstance(event, wire.Trouble)], info, answer


def test_empty_folder_is_reported_and_the_base_model_answers(settings: Settings, tmp_path: Path):
    warnings, info, answer = _open_and_complete(settings, tmp_path)
    assert [(t.code, t.severity) for t in warnings] == [("nothing-to-learn", "info")]
    assert "has no readable python file yet; completions use the base model." in warnings[0].message
    assert (info.state, info.generation, answer.generation) == ("ready", 0, 0)
    assert answer.new_tokens > 0


def test_folder_without_python_files_is_reported_in_the_same_way(settings: Settings, tmp_path: Path):
    (tmp_path / "notes.md").write_text("# Notes\n", encoding="utf-8")
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    warnings, info, answer = _open_and_complete(settings, tmp_path)
    assert [t.code for t in warnings] == ["nothing-to-learn"]
    assert info.files == 0
    assert answer.new_tokens > 0


def test_missing_folder_is_named_and_the_base_model_answers(settings: Settings, tmp_path: Path):
    warnings, info, answer = _open_and_complete(settings, tmp_path / "gone")
    assert [t.code for t in warnings] == ["folder"]
    assert str(tmp_path / "gone") in warnings[0].message
    assert info.state == "failed"
    assert answer.new_tokens > 0


def test_folder_without_git_is_indexed(settings: Settings, tmp_path: Path):
    (tmp_path / "prices.py").write_text(TEXT, encoding="utf-8")
    warnings, info, answer = _open_and_complete(settings, tmp_path)
    assert not warnings
    assert (info.files, info.generation) == (1, 1)
    assert answer.new_tokens > 0


def test_folder_that_is_no_git_repository_raises_git_error(tmp_path: Path):
    from c2l_lsp.repo.git import git_process

    with pytest.raises(errors.GitError, match="is not a git repository; its history cannot be used"):
        git_process.run(tmp_path, "log")


def test_unreadable_files_are_skipped_and_the_others_indexed(settings: Settings, tmp_path: Path):
    (tmp_path / "good.py").write_text(TEXT, encoding="utf-8")
    (tmp_path / "bytes.py").write_bytes(b"name = '\xff\xfe\x00'\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "folder.py").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.py")
    if hasattr(os, "geteuid") and os.geteuid() != 0:  # root may read everything
        (tmp_path / "locked.py").write_text(TEXT, encoding="utf-8")
        (tmp_path / "locked.py").chmod(0)
    warnings, info, answer = _open_and_complete(settings, tmp_path)
    assert not warnings
    assert info.files == 1
    assert answer.generation == 1


# --- errors on the command line --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "prices"
    root.mkdir()
    (root / "prices.py").write_text(TEXT, encoding="utf-8")
    return root


def _complete(folder: Path, tiny_folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    place = f"{folder / 'prices.py'}:2:12"
    monkeypatch.setattr(
        sys, "argv", ["c2l-lsp", "complete", place, "--json", "--model", str(tiny_folder), "--max-new-tokens", "4"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_invalid_setting_is_reported_and_the_completion_succeeds(
    folder: Path, tiny_folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    config = tmp_path / "config.toml"
    config.write_text('[completion]\nmaxNewTokens = "many"\n[adaptor]\nenable = false\n', encoding="utf-8")
    monkeypatch.setenv("C2L_CONFIG", str(config))
    code, out, err = _complete(folder, tiny_folder, capsys, monkeypatch)
    assert code == 0
    assert f"c2l.completion.maxNewTokens in {config} is ignored: Expected `int`, got `str`." in err
    assert f"c2l.adaptor.enable in {config} is not a setting." in err
    assert msgspec.json.decode(out)["new_tokens"] > 0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ('path = "/nowhere/at/all"', "c2l.model.path names"),
        ('id = "nobody/no-such-model"\noffline = true', "c2l.model.offline is on and the model is not on this machine"),
        ('device = "cuda:9"', "which this machine does not have; use auto or cpu"),
    ],
)
def test_missing_model_prints_one_sentence(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, values: str, sentence: str
):
    config = tmp_path / "config.toml"
    config.write_text(f"[model]\n{values}\n", encoding="utf-8")
    monkeypatch.setenv("C2L_CONFIG", str(config))
    monkeypatch.setattr(sys, "argv", ["c2l-lsp", "complete", f"{folder / 'prices.py'}:2:12"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""


def test_unwritable_state_directory_is_reported_and_the_completion_succeeds(
    folder: Path, tiny_folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if (
        hasattr(os, "geteuid") and os.geteuid() == 0
    ):  # root ignores modes; a file in place of the folder fails for root too
        locked = tmp_path / "file"
        locked.write_bytes(b"")
    monkeypatch.setenv("C2L_STATE_DIR", str(locked / "state"))
    code, out, err = _complete(folder, tiny_folder, capsys, monkeypatch)
    assert code == 0
    assert "The state cannot be saved in" in err
    assert str(locked / "state") in err
    assert msgspec.json.decode(out)["generation"] == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file size limit")
def test_full_disk_is_reported_and_the_completion_succeeds(folder: Path, tiny_folder: Path, tmp_path: Path):
    """A file size limit of 8 kB makes every larger write fail half-way, as on a full disk."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "from c2l_lsp.cli import main\n"
        "main()\n"
    )
    place = f"{folder / 'prices.py'}:2:12"
    done = subprocess.run(
        [sys.executable, "-c", code, "complete", place, "--json", "--model", str(tiny_folder)],
        capture_output=True, text=True, timeout=150, check=False,
        env={**os.environ, "C2L_STATE_DIR": str(tmp_path / "state")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "The state cannot be saved in" in done.stderr
    assert msgspec.json.decode(done.stdout)["generation"] == 1
