"""Scans: nothing is read twice, nothing is missed, in steps."""

import os
import time
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.errors import FolderError
from c2l_lsp.repo.filter.files import FileFilter, FileText, Refusal
from c2l_lsp.repo.history.diff import between
from c2l_lsp.repo.history.snapshot import UNSETTLED, Entry, Scan, Snapshot
from tests.support.git_repositories import write

HOUR_NS = 3600 * 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, {"a.py": "a = 1\n", "pkg/b.py": "b = 1\n", "pkg/sub/c.py": "c = 1\n", "pkg2/d.py": "d = 1\n"})
    return tmp_path


def rules(root: Path) -> FileFilter:
    return FileFilter(root, config.Files())


def settled(root: Path) -> Snapshot:
    """A snapshot of files that were old when they were read."""
    return Scan(rules(root), {}, clock_ns=lambda: time.time_ns() + HOUR_NS).finish()


def test_an_unchanged_folder_is_not_read_again(folder: Path):
    known = settled(folder)
    again = Scan(rules(folder), known)
    assert again.finish() == known
    assert (again.seen, again.read) == (4, 0)


def test_what_was_read_is_handed_over_once(folder: Path):
    known = settled(folder)
    write(folder, {"pkg/b.py": "b = 22\n", "new.py": "n = 1\n"})
    handed: list[tuple[str, FileText]] = []
    scan = Scan(rules(folder), known, on_read=lambda path, file: handed.append((path, file)))
    found = scan.finish()
    assert [(path, file.text) for path, file in handed] == [("new.py", "n = 1\n"), ("pkg/b.py", "b = 22\n")]
    assert scan.read == 2
    assert found["pkg/b.py"].digest == handed[1][1].digest
    assert known["pkg/b.py"].size == 6, "the known snapshot is left as it is"


def test_a_second_edit_within_the_same_tick_is_found(folder: Path):
    """git's racy rule: same size, same time, other content; looking at it later than two seconds must not hide it."""
    path = folder / "a.py"
    first = Scan(rules(folder), {}).finish()
    assert first["a.py"].mtime_ns == UNSETTLED
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text("a = 2\n")
    os.utime(path, ns=times)
    later = Scan(rules(folder), first, clock_ns=lambda: time.time_ns() + HOUR_NS).finish()
    assert [edit.path for edit in between(first, later).diffs] == ["a.py"]
    assert later["a.py"].mtime_ns == times[1]


def test_a_file_from_the_future_is_read_each_time(folder: Path):
    os.utime(folder / "a.py", ns=(0, time.time_ns() + 24 * HOUR_NS))
    known = settled(folder)
    assert known["a.py"].mtime_ns == UNSETTLED
    assert Scan(rules(folder), known).finish() == known


def test_a_hinted_file_is_read_whatever_its_time_says(folder: Path):
    known = settled(folder)
    times = (folder / "a.py").stat().st_mtime_ns
    write(folder, {"a.py": "a = 9\n"})
    os.utime(folder / "a.py", ns=(times, times))
    assert between(known, Scan(rules(folder), known).finish()).diffs == ()
    scan = Scan(rules(folder), known, only=frozenset({"a.py"}))
    assert [edit.path for edit in between(known, scan.finish()).diffs] == ["a.py"]
    assert (scan.seen, scan.read) == (1, 1)


def test_hints_of_folders_stand_for_all_below(folder: Path):
    known = settled(folder)
    (folder / "pkg").rename(folder / "lib")
    write(folder, {"pkg2/unseen.py": "u = 1\n"})
    found = Scan(rules(folder), known, only=frozenset({"pkg", "lib"})).finish()
    edits = {(edit.kind, edit.old_path, edit.path) for edit in between(known, found).diffs}
    assert edits == {("renamed", "pkg/b.py", "lib/b.py"), ("renamed", "pkg/sub/c.py", "lib/sub/c.py")}


@pytest.mark.parametrize("hint", ["gone.py", "a.py", "pkg", "pkg/sub/c.py", "..", "", "/etc", "pkg/b.py/x.py", "\0"])
def test_any_hint_may_come(folder: Path, hint: str):
    (folder / "pkg/sub/c.py").unlink()
    known = settled(folder) | {"pkg/sub/c.py": Entry(b"old", 3, 0)}
    found = Scan(rules(folder), known, only=frozenset({hint})).finish()
    gone = hint in ("pkg", "pkg/sub/c.py", "")
    assert set(found) == {"a.py", "pkg/b.py", "pkg2/d.py"} | (set() if gone else {"pkg/sub/c.py"})


def test_a_file_that_became_a_folder(folder: Path):
    known = settled(folder)
    (folder / "a.py").unlink()
    write(folder, {"a.py/inner.py": "i = 1\n"})
    assert set(Scan(rules(folder), known, only=frozenset({"a.py"})).finish()) == set(Scan(rules(folder), {}).finish())


def test_steps_keep_to_their_budget(tmp_path: Path):
    write(tmp_path, {f"p{i % 20}/m{i}.py": f"x = {i}\n" * 50 for i in range(1500)})
    scan = Scan(rules(tmp_path), {})
    times = []
    done = False
    while not done:
        began = time.thread_time()  # other processes do not count
        done = scan.step(0.01)
        times.append(time.thread_time() - began)
    assert len(times) > 3
    assert max(times) < 0.05
    assert len(scan.snapshot) == 1500


def test_the_result_is_not_to_be_had_early(folder: Path):
    scan = Scan(rules(folder), {})
    scan.step(0.0)
    with pytest.raises(RuntimeError, match="not done"):
        _ = scan.snapshot


def test_refused_files_are_counted_and_not_held(folder: Path):
    write(folder, {"b.py": b"\0", "c.py": b"\0", "d.py": "x" * 6000, "e.txt": "x"})
    scan = Scan(rules(folder), {})
    assert len(scan.finish()) == 4
    assert scan.refused == {Refusal.BINARY: 2, Refusal.MINIFIED: 1}


def test_a_folder_that_vanished_is_not_an_empty_folder(folder: Path):
    held = rules(folder)
    known = settled(folder)
    folder.rename(folder.with_name("aside"))
    for only in (None, frozenset({"a.py"})):
        with pytest.raises(FolderError, match="not there any more"):
            Scan(held, known, only=only).finish()
    folder.with_name("aside").rename(folder)


@pytest.mark.parametrize("only", [None, frozenset({"a.py", "pkg"})])
def test_a_folder_that_vanishes_on_the_way_is_not_an_empty_folder(folder: Path, only: frozenset[str] | None):
    scan = Scan(rules(folder), {}, only)
    scan.step(0.0)
    folder.rename(folder.with_name("aside"))
    with pytest.raises(FolderError):
        scan.finish()
    folder.with_name("aside").rename(folder)


def test_an_excluded_file_changes_nothing(folder: Path):
    write(folder, {".gitignore": "hidden.py\n", "hidden.py": "x\n", ".env": "A=1\n"})
    before = settled(folder)
    write(folder, {"hidden.py": "y\n", ".env": "A=2\n"})
    assert Scan(rules(folder), before, only=frozenset({"hidden.py", ".env"})).finish() == before == settled(folder)


@pytest.mark.parametrize("only", [frozenset({"a.py", "A.py"}), None])
def test_a_rename_of_letters_case_where_case_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch, only: frozenset[str] | None
):
    """There the old name still opens the file, and only the listing tells what it is called."""
    held = Scan(FileFilter(folder, config.Files()), {}).finish()
    assert "a.py" in held
    os.link(folder / "a.py", folder / "A.py")  # both names open it
    real = FileFilter._listed
    monkeypatch.setattr(FileFilter, "_listed", lambda self, path: [p for p in real(self, path) if p != "a.py"])
    found = Scan(FileFilter(folder, config.Files()), held, only=only).finish()
    assert "A.py" in found
    assert "a.py" not in found
