"""Which folders Python imports from after `isolate`, in processes with hostile search paths."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

from c2l_lsp import isolation

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import json, os, sys
from c2l_lsp import isolation
isolation.isolate()
import queue, zipfile  # the standard library is still there
print(json.dumps([sys.path, sorted(set(os.environ) & set(isolation.VARIABLES)), sys.pycache_prefix]))
"""


def search_path(cwd: Path, *pythonpath: str, **environment: str) -> list[str]:
    """The search path after `isolate` in a process with this PYTHONPATH, after the folder of this checkout."""
    environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(ROOT), *pythonpath])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    path, variables, cache = json.loads(done.stdout)
    assert variables == []
    assert cache is None
    return path


@pytest.mark.parametrize("named", ["{folder}", "{folder}/", "{link}", ".", "", "../folder"])
def test_folder_named_in_any_way_is_removed(tmp_path: Path, named: str) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    path = search_path(folder, named.format(folder=folder, link=link))
    assert not [entry for entry in path if Path(entry).resolve() == folder]
    assert str(ROOT) in path


def test_entry_of_pythonpath_outside_the_current_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert str(tmp_path) not in search_path(tmp_path / "other", str(tmp_path))


def test_site_directory_named_in_pythonpath_stays(tmp_path: Path) -> None:
    import msgspec

    packages = str(Path(msgspec.__file__).parents[1])
    if packages not in [str(Path(entry).resolve()) for entry in site.getsitepackages()]:
        pytest.skip("the packages are in no site directory")
    assert packages in search_path(tmp_path, packages)


def test_standard_library_stays_if_it_is_the_opened_folder() -> None:
    library = Path(os.__file__).parent
    assert str(library) in search_path(library, str(library))


def test_variables_are_removed_and_no_bytecode_is_read_from_elsewhere(tmp_path: Path) -> None:
    search_path(tmp_path, PYTHONPYCACHEPREFIX=str(tmp_path), PYTHONSTARTUP=str(tmp_path / "a.py"), PYTHONUSERBASE="x")


def test_entry_point_imports_nothing_before_the_path_is_clean(tmp_path: Path) -> None:
    """Modules of the standard library that `isolate` itself might import, even `__future__`, come from the folder."""
    for name in ("__future__", "pathlib", "typing", "json"):
        (tmp_path / f"{name}.py").write_text("print('ran')\n")
    program = (
        "import sys; sys.path.insert(0, {!r}); from c2l_lsp.__main__ import main; sys.argv[1:] = ['--version']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program.format(str(tmp_path))], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "ran" not in done.stdout + done.stderr
    assert "typer" in done.stderr  # without site directories; `json` and `pathlib` were imported before it


def test_relative_files_of_the_user_keep_their_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("C2L_STATE_DIR", "state")
    isolation.leave_folder()
    assert os.environ["C2L_STATE_DIR"] == str(tmp_path / "state")
    assert Path.cwd() == Path(isolation.SAFE_FOLDER)
