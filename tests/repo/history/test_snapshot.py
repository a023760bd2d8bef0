"""Scans: they read only what may have changed, miss no change, and work in steps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.errors import FolderError
from c2l_lsp.repo.filter.files import FileFilter, FileText
from c2l_lsp.repo.history.snapshot import UNSETTLED, Entry, Scan, Snapshot
from tests.support.git_repositories import write
from tests.support.snapshots import changes, scan

HOUR_NS = 3600 * 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, {"a.py": "a = 1\n", "pkg/b.py": "b = 1\n", "pkg/sub/c.py": "c = 1\n", "pkg2/d.py": "d = 1\n"})
    return tmp_path


def filter_of(root: Path) -> FileFilter:
    return FileFilter(root, config.Files())


def scan_an_hour_later(root: Path, previous: Snapshot | None = None) -> Snapshot:
    """Return a snapshot for which all files count as old."""
    running = Scan(filter_of(root), previous or {}, clock_ns=lambda: time.time_ns() + HOUR_NS)
    while not running.step(1.0):
        pass
    return running.snapshot


class ReadFiles(dict[str, FileText]):
    """Collects the files that a scan reads; each may be read once."""

    def __call__(self, path: str, file: FileText) -> None:
        assert path not in self
        self[path] = file


def test_scan_of_unchanged_folder_reads_no_file(folder: Path):
    known = scan_an_hour_later(folder)
    read = ReadFiles()
    assert scan(filter_of(folder), known, on_read=read) == known
    assert not read


def test_scan_passes_each_changed_file_to_on_read_once(folder: Path):
    known = scan_an_hour_later(folder)
    write(folder, {"pkg/b.py": "b = 22\n", "new.py": "n = 1\n"})
    read = ReadFiles()
    found = scan(filter_of(folder), known, on_read=read)
    assert {path: file.text for path, file in read.items()} == {"new.py": "n = 1\n", "pkg/b.py": "b = 22\n"}
    assert found["pkg/b.py"].digest == read["pkg/b.py"].digest
    assert known["pkg/b.py"].size == 6, "the previous snapshot is not modified"


def test_second_edit_within_the_same_clock_tick_is_found(folder: Path):
    """A racily clean file: same size, same time, other content. A scan after two seconds must still find the edit."""
    path = folder / "a.py"
    first = scan(filter_of(folder))
    assert first["a.py"].mtime_ns == UNSETTLED
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text("a = 2\n")
    os.utime(path, ns=times)
    later = scan_an_hour_later(folder, first)
    assert changes(first, later) == {"a.py": "modified"}
    assert later["a.py"].mtime_ns == times[1]


def test_file_with_a_future_mtime_is_read_by_every_scan(folder: Path):
    os.utime(folder / "a.py", ns=(0, time.time_ns() + 24 * HOUR_NS))
    known = scan_an_hour_later(folder)
    assert known["a.py"].mtime_ns == UNSETTLED
    read = ReadFiles()
    assert scan(filter_of(folder), known, on_read=read) == known
    assert read.keys() == {"a.py"}


def test_hinted_file_is_read_even_if_its_mtime_is_unchanged(folder: Path):
    known = scan_an_hour_later(folder)
    mtime_ns = (folder / "a.py").stat().st_mtime_ns
    write(folder, {"a.py": "a = 9\n"})
    os.utime(folder / "a.py", ns=(mtime_ns, mtime_ns))
    assert changes(known, scan(filter_of(folder), known)) == {}
    read = ReadFiles()
    found = scan(filter_of(folder), known, frozenset({"a.py"}), read)
    assert changes(known, found) == {"a.py": "modified"}
    assert read.keys() == {"a.py"}


def test_directory_hint_covers_all_files_below_it(folder: Path):
    known = scan_an_hour_later(folder)
    (folder / "pkg").rename(folder / "lib")
    write(folder, {"pkg2/unseen.py": "u = 1\n"})
    assert changes(known, scan(filter_of(folder), known, frozenset({"pkg", "lib"}))) == {
        "lib/b.py": "added", "lib/sub/c.py": "added", "pkg/b.py": "deleted", "pkg/sub/c.py": "deleted",
    }  # fmt: skip


@pytest.mark.parametrize("hint", ["gone.py", "a.py", "pkg", "pkg/sub/c.py", "..", "", "/etc", "pkg/b.py/x.py", "\0"])
def test_scan_accepts_any_hint(folder: Path, hint: str):
    (folder / "pkg/sub/c.py").unlink()
    known = scan_an_hour_later(folder) | {"pkg/sub/c.py": Entry(b"old", 3, 0)}
    found = scan(filter_of(folder), known, frozenset({hint}))
    gone = hint in ("pkg", "pkg/sub/c.py", "")
    assert set(found) == {"a.py", "pkg/b.py", "pkg2/d.py"} | (set() if gone else {"pkg/sub/c.py"})


def test_file_replaced_by_a_directory_is_scanned_as_a_directory(folder: Path):
    known = scan_an_hour_later(folder)
    (folder / "a.py").unlink()
    write(folder, {"a.py/inner.py": "i = 1\n"})
    assert set(scan(filter_of(folder), known, frozenset({"a.py"}))) == set(scan(filter_of(folder)))


def test_steps_keep_to_their_time_budget(tmp_path: Path):
    write(tmp_path, {f"p{i % 20}/m{i}.py": f"x = {i}\n" * 50 for i in range(1500)})
    running = Scan(filter_of(tmp_path), {})
    times = []
    done = False
    while not done:
        began = time.thread_time()  # excludes the time of other processes
        done = running.step(0.01)
        times.append(time.thread_time() - began)
    assert len(times) > 3
    assert max(times) < 0.05
    assert len(running.snapshot) == 1500


def test_snapshot_of_an_unfinished_scan_raises(folder: Path):
    running = Scan(filter_of(folder), {})
    running.step(0.0)
    with pytest.raises(RuntimeError, match="not done"):
        _ = running.snapshot


def test_refused_files_are_not_in_the_snapshot(folder: Path):
    write(folder, {"b.py": b"\0", "c.py": b"\0", "d.py": "x" * 6000, "e.txt": "x"})
    assert set(scan(filter_of(folder))) == {"a.py", "pkg/b.py", "pkg/sub/c.py", "pkg2/d.py"}


def test_missing_root_raises_instead_of_deleting_all_files(folder: Path):
    held = filter_of(folder)
    known = scan_an_hour_later(folder)
    folder.rename(folder.with_name("aside"))
    for hints in (None, frozenset({"a.py"})):
        with pytest.raises(FolderError, match="no longer exists"):
            scan(held, known, hints)
    folder.with_name("aside").rename(folder)


@pytest.mark.parametrize("hints", [None, frozenset({"a.py", "pkg"})])
def test_root_that_vanishes_during_a_scan_raises(folder: Path, hints: frozenset[str] | None):
    running = Scan(filter_of(folder), {}, hints)
    running.step(0.0)
    folder.rename(folder.with_name("aside"))
    with pytest.raises(FolderError):
        running.step(60.0)
    folder.with_name("aside").rename(folder)


def test_edit_of_an_excluded_file_changes_no_snapshot(folder: Path):
    write(folder, {".gitignore": "hidden.py\n", "hidden.py": "x\n", ".env": "A=1\n"})
    before = scan_an_hour_later(folder)
    write(folder, {"hidden.py": "y\n", ".env": "A=2\n"})
    hinted = scan(filter_of(folder), before, frozenset({"hidden.py", ".env"}))
    assert hinted == before == scan_an_hour_later(folder)


@pytest.mark.parametrize("hints", [frozenset({"a.py", "A.py"}), None])
def test_case_only_rename_is_found_on_a_case_insensitive_file_system(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hints: frozenset[str] | None
):
    """The old name still opens the file there; only the directory listing has the new spelling."""
    known = scan(filter_of(folder))
    assert "a.py" in known
    os.link(folder / "a.py", folder / "A.py")  # both names open it
    real = FileFilter._list_directory
    monkeypatch.setattr(FileFilter, "_list_directory", lambda self, path: [p for p in real(self, path) if p != "a.py"])
    found = scan(filter_of(folder), known, hints)
    assert "A.py" in found
    assert "a.py" not in found
