"""The watcher with real file system events. Every wait is for a condition and has a time limit."""

import errno
import gc
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.errors import C2LError, FolderError
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.git.git_directory import git_busy
from c2l_lsp.repo.history.snapshot import Snapshot
from c2l_lsp.repo.watching import mounts, watch
from c2l_lsp.repo.watching.coalesce import Coalescer
from c2l_lsp.repo.watching.watch import Watcher
from tests.support.git_repositories import GitRepo, write
from tests.support.save_styles import SAVE_STYLES
from tests.support.snapshots import changes, scan

if sys.platform == "linux":
    from c2l_lsp.repo.watching import inotify

LIMIT_S = 20.0


class Hints:
    """Collects hints and warnings, and can wait for them."""

    def __init__(self) -> None:
        self.all: list[frozenset[str] | None] = []
        self.warnings: list[C2LError] = []
        self._news = threading.Condition()

    def add(self, hint: frozenset[str] | None) -> None:
        with self._news:
            self.all.append(hint)
            self._news.notify_all()

    def wait_until(self, wanted: Callable[[set[str], int], bool]) -> None:
        """Wait until `wanted(all hinted paths, number of whole-folder hints)` is true."""
        with self._news:
            assert self._news.wait_for(lambda: wanted(self.paths, self.all.count(None)), LIMIT_S), self.all

    @property
    def paths(self) -> set[str]:
        return set().union(*(hint for hint in self.all if hint is not None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    write(root, {"a.py": "a = 1\n", "pkg/b.py": "b = 1\n"})
    return root


@pytest.fixture
def hints() -> Hints:
    return Hints()


@pytest.fixture
def watched(folder: Path, hints: Hints) -> Iterator[Watcher]:
    watcher = Watcher(folder, FileFilter(folder, config.Files()), hints.add, hints.warnings.append)
    watcher.start()
    yield watcher
    watcher.stop()


def fence(root: Path, hints: Hints, name: str = "fence.py") -> None:
    """Write a file and wait for its hint. Earlier events have then been handled, as events keep their order."""
    write(root, {name: "x = 1\n"})
    hints.wait_until(lambda paths, _: name in paths)


def test_created_modified_moved_and_deleted_files_are_hinted(watched: Watcher, folder: Path, hints: Hints):
    assert watched.mode == "native"
    assert watched.alive
    write(folder, {"new.py": "x\n", "pkg/b.py": "b = 2\n", "notes.txt": "x"})
    (folder / "a.py").rename(folder / "moved.py")
    (folder / "pkg/b.py").unlink()
    hints.wait_until(lambda paths, _: {"new.py", "pkg/b.py", "a.py", "moved.py"} <= paths)
    assert "notes.txt" not in hints.paths
    assert None not in hints.all


def test_files_in_a_new_folder_are_hinted(watched: Watcher, folder: Path, hints: Hints):
    write(folder, {"x/y/z.py": "z\n"})
    hints.wait_until(lambda paths, _: "x/y/z.py" in paths or "x" in paths or "x/y" in paths)
    fence(folder, hints, "x/y/later.py")


def test_moved_folder_is_hinted_at_both_paths(watched: Watcher, folder: Path, hints: Hints):
    (folder / "pkg").rename(folder / "lib")
    hints.wait_until(lambda paths, _: {"pkg", "lib"} <= paths)
    fence(folder, hints, "lib/after.py")


def test_case_only_rename_is_a_deletion_and_a_creation(watched: Watcher, folder: Path, hints: Hints):
    held: Snapshot = scan(watched.filter)
    (folder / "a.py").rename(folder / "A.py")
    hints.wait_until(lambda paths, _: {"a.py", "A.py"} <= paths)
    found = scan(watched.filter, held, hints=frozenset({"a.py", "A.py"}))
    listed = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    assert set(found) == listed == {"A.py", "pkg/b.py"}
    assert found == scan(watched.filter)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes")
def test_mode_change_is_an_edit_only_if_readability_changes(watched: Watcher, folder: Path, hints: Hints):
    """A changed mode is no edit. An unreadable file is not in the snapshot until it is readable again."""
    held: Snapshot = scan(watched.filter)
    (folder / "a.py").chmod(0o755)
    assert changes(held, scan(watched.filter, held, hints=frozenset({"a.py"}))) == {}
    (folder / "a.py").chmod(0)
    if not os.access(folder / "a.py", os.R_OK):  # root reads whole_folder
        assert set(scan(watched.filter, held, hints=frozenset({"a.py"}))) == {"pkg/b.py"}
    (folder / "a.py").chmod(0o644)
    write(folder, {"a.py": "a = 2\n"})
    hints.wait_until(lambda paths, _: "a.py" in paths)
    found = scan(watched.filter, held, hints=frozenset({"a.py"}))
    assert changes(held, found) == {"a.py": "modified"}


def test_reading_files_causes_no_events(watched: Watcher, folder: Path, hints: Hints, monkeypatch: pytest.MonkeyPatch):
    """Not even discarded events, because those would fill the queue of the system."""
    from watchdog.observers.inotify_c import InotifyEvent, InotifyFD

    write(folder, {f"many/m{i}.py": f"x = {i}\n" for i in range(300)})
    fence(folder, hints)
    before = len(hints.all)
    names: set[bytes] = set()
    real = InotifyFD.handle_event

    def count(self: InotifyFD, event: InotifyEvent) -> None:
        names.add(event.name)
        real(self, event)

    monkeypatch.setattr(InotifyFD, "handle_event", count)
    for _ in range(3):
        scan(watched.filter)
    fence(folder, hints, "fence2.py")
    assert names <= {b"fence.py", b"fence2.py"}
    assert {path for hint in hints.all[before:] for path in hint or ("whole_folder",)} <= {"fence.py", "fence2.py"}


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_file_that_becomes_readable_is_hinted(watched: Watcher, folder: Path, hints: Hints):
    (folder / "a.py").chmod(0o200)
    hints.wait_until(lambda paths, _: "a.py" in paths)
    fence(folder, hints)
    hints.all.clear()
    (folder / "a.py").chmod(0o600)
    hints.wait_until(lambda paths, _: "a.py" in paths)
    assert None not in hints.all


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_folder_that_becomes_readable_is_hinted_and_watched(
    folder: Path, hints: Hints, monkeypatch: pytest.MonkeyPatch
):
    """`os.access` is patched, because the test may run as root."""
    real, unreadable = os.access, {os.fsencode(folder / "pkg")}
    monkeypatch.setattr(os, "access", lambda path, mode: os.fsencode(path) not in unreadable and real(path, mode))
    watcher = Watcher(folder, FileFilter(folder, config.Files()), hints.add)
    watcher.start()
    try:
        (folder / "pkg").chmod(0o700)
        hints.wait_until(lambda paths, _: "pkg" in paths)  # became unreadable
        unreadable.clear()
        fence(folder, hints)
        hints.all.clear()
        (folder / "pkg").chmod(0o755)
        hints.wait_until(lambda paths, _: "pkg" in paths)  # became readable
        fence(folder, hints, "pkg/inside.py")
        hints.all.clear()
        for _ in range(50):
            os.utime(folder / "pkg")
            os.utime(folder)
        fence(folder, hints, "fence2.py")
        assert hints.paths <= {"fence2.py", "pkg/inside.py"}
        assert None not in hints.all
    finally:
        watcher.stop()


def test_ignored_folders_are_not_watched(tmp_path: Path, hints: Hints):
    write(tmp_path, {".gitignore": "big/\n", "big/deep/a.py": "x\n", "node_modules/m/b.py": "x\n", "src/c.py": "x\n"})
    write(tmp_path, {".git/HEAD": "ref: refs/heads/main\n", ".git/objects/ab/x": "x"})
    watcher = Watcher(tmp_path, FileFilter(tmp_path, config.Files()), hints.add)
    watcher.start()
    try:
        assert watcher._observer is not None
        watches = watcher._observer.inotify._watch_for_wd.values()  # type: ignore[attr-defined]
        folders = {os.path.relpath(os.fsdecode(watch._initial_creation_path), tmp_path) for watch in watches}
        assert folders == {".", ".git", "src"}
        write(tmp_path, {"big/deep/a.py": "y\n", "node_modules/n/c.py": "y\n", ".git/objects/cd/y": "y"})
        fence(tmp_path, hints)
        assert {hint for hint in hints.all if hint != frozenset({"fence.py"})} == set()
    finally:
        watcher.stop()


@pytest.mark.parametrize("path", [".gitignore", "pkg/.gitignore", ".c2lignore", "pkg/CACHEDIR.TAG"])
def test_changed_rule_file_hints_the_whole_folder(watched: Watcher, folder: Path, hints: Hints, path: str):
    write(folder, {path: "hidden.py\n"})
    hints.wait_until(lambda _, whole_folder: whole_folder >= 1)


def test_watches_follow_the_ignore_rules(watched: Watcher, folder: Path, hints: Hints):
    write(folder, {".gitignore": "pkg/\n"})
    hints.wait_until(lambda _, whole_folder: whole_folder >= 2)  # the change, then the new watches
    write(folder, {"pkg/quiet.py": "x\n"})
    fence(folder, hints)
    assert "pkg/quiet.py" not in hints.paths
    nones = hints.all.count(None)
    (folder / ".gitignore").unlink()
    hints.wait_until(lambda _, whole_folder: whole_folder >= nones + 2)
    write(folder, {"pkg/loud.py": "x\n"})
    hints.wait_until(lambda paths, _: "pkg/loud.py" in paths)


def test_branch_change_hints_the_whole_folder(git_repo: GitRepo, hints: Hints):
    git_repo.commit({"a.py": "a\n"})
    git_repo.git("branch", "other")
    watcher = Watcher(git_repo.root, FileFilter(git_repo.root, config.Files()), hints.add)
    watcher.start()
    try:
        git_repo.git("add", "-A")  # writes the index, changes no file
        fence(git_repo.root, hints)
        assert None not in hints.all
        git_repo.git("checkout", "-q", "other")
        hints.wait_until(lambda _, whole_folder: whole_folder >= 1)
    finally:
        watcher.stop()


def test_branch_change_in_a_linked_worktree_is_hinted(git_repo: GitRepo, tmp_path: Path, hints: Hints):
    git_repo.commit({"a.py": "a\n"})
    git_repo.git("branch", "third")
    git_repo.git("worktree", "add", "-q", "-b", "second", str(tmp_path / "linked"))
    watcher = Watcher(tmp_path / "linked", FileFilter(tmp_path / "linked", config.Files()), hints.add)
    watcher.start()
    try:
        git_repo.git("checkout", "-q", "third", cwd=tmp_path / "linked")
        hints.wait_until(lambda _, whole_folder: whole_folder >= 1)
    finally:
        watcher.stop()


def test_queue_overflow_hints_the_whole_folder(watched: Watcher, folder: Path, hints: Hints):
    """Regression: while the reader stalled, the system dropped most events of a checkout without a report."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 20_000:
        pytest.skip("a longer queue would take minutes to fill")
    assert watched._observer is not None
    reader = watched._observer.inotify  # type: ignore[attr-defined]
    one, two = folder / "o.py", folder / "t.py"
    with reader._lock:  # the reader needs this lock before it reads
        write(folder, {"o.py": "x\n", "t.py": "x\n"})
        for _ in range(most // 4 + 1000):  # alternating, because consecutive equal events are merged
            one.rename(two)
            two.rename(one)
    hints.wait_until(lambda _, whole_folder: whole_folder >= 1)
    assert watched.overflows == 1
    fence(folder, hints, "pkg/after.py")  # the watches were replaced
    fence(folder, hints)


def test_event_burst_is_discarded_and_hints_the_whole_folder(watched: Watcher, folder: Path, hints: Hints):
    """Regression: converting the events of a large checkout to hints kept the interpreter from completions."""
    reader = watched._observer.inotify  # type: ignore[union-attr]
    with reader._lock:  # so that all events are read at once
        write(folder, {f"burst/{number % 7}/s{number}.py": "x\n" for number in range(inotify.BURST_EVENTS)})
        write(folder, {f"s{number}.py": "x\n" for number in range(inotify.BURST_EVENTS)})
    hints.wait_until(lambda _, whole_folder: whole_folder >= 1)
    assert watched.overflows == 1
    assert len(hints.paths) < 1.5 * inotify.BURST_EVENTS  # there are twice as many files
    fence(folder, hints, "burst/3/after.py")  # folders created during the burst are watched
    fence(folder, hints)


def test_watcher_can_be_stopped_during_a_burst(watched: Watcher, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inotify, "MAX_BURST_S", 60.0)
    monkeypatch.setattr(inotify, "BURST_EVENTS", 20)
    stop = threading.Event()

    def write_files() -> None:
        while not stop.is_set():
            write(folder, {"one.py": "x\n", "two.py": "x\n"})

    writer = threading.Thread(target=write_files)
    writer.start()
    try:
        reader = watched._observer.inotify  # type: ignore[union-attr]
        deadline = time.monotonic() + LIMIT_S
        while not (reader._is_reading and reader._count > inotify.BURST_EVENTS):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        watched.stop()
        assert not reader.is_alive()
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
def test_watch_limit_at_start_switches_to_polling(
    folder: Path, hints: Hints, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refuse(*_: object) -> None:
        raise OSError(number, "no more")

    monkeypatch.setattr("watchdog.observers.inotify_c.InotifyFD.add_callback", refuse)
    watcher = Watcher(folder, FileFilter(folder, config.Files()), hints.add, hints.warnings.append, poll_s=0.05)
    watcher.start()
    try:
        assert watcher.mode == "polling"
        assert [type(trouble) for trouble in hints.warnings] == [FolderError]
        assert "max_user_watches" in str(hints.warnings[0])
        write(folder, {"pkg/b.py": "b = 22\n", "c.py": "c\n", "node_modules/x.py": "x\n"})
        (folder / "a.py").unlink()
        hints.wait_until(lambda paths, _: {"pkg/b.py", "c.py", "a.py"} <= paths)
        assert "node_modules/x.py" not in hints.paths
    finally:
        watcher.stop()


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_watch_limit_below_the_root_switches_to_polling(
    folder: Path, hints: Hints, monkeypatch: pytest.MonkeyPatch, when: str
):
    """watchdog silently skips a folder that it cannot watch; its edits would be missed."""
    from watchdog.observers.inotify_c import InotifyFD

    real = InotifyFD.add_callback

    def refuse(self: InotifyFD, path: bytes, *rest: object) -> object:
        if path.endswith((b"/deep", b"/pkg") if when == "at the start" else b"/deep"):
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        return real(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(InotifyFD, "add_callback", refuse)
    watcher = Watcher(folder, FileFilter(folder, config.Files()), hints.add, hints.warnings.append, poll_s=0.05)
    watcher.start()
    try:
        if when == "later":
            assert watcher.mode == "native"
            write(folder, {"deep/x.py": "x\n"})
            hints.wait_until(lambda _, whole_folder: whole_folder >= 1)
        assert watcher.mode == "polling"
        assert len(hints.warnings) == 1
        write(folder, {"pkg/b.py": "b = 23\n", "deep/y.py": "y\n"})
        hints.wait_until(lambda paths, _: {"pkg/b.py", "deep/y.py"} <= paths)
    finally:
        watcher.stop()


def test_polling_detects_branch_and_rule_changes(git_repo: GitRepo, hints: Hints, monkeypatch: pytest.MonkeyPatch):
    git_repo.commit({"a.py": "a\n"})
    monkeypatch.setattr(watch, "is_remote", lambda _: True)
    watcher = Watcher(git_repo.root, FileFilter(git_repo.root, config.Files()), hints.add, poll_s=0.05)
    watcher.start()
    try:
        assert watcher.mode == "polling"
        git_repo.git("checkout", "-q", "-b", "other")
        hints.wait_until(lambda _, whole_folder: whole_folder >= 1)
        write(git_repo.root, {".gitignore": "x\n"})
        hints.wait_until(lambda _, whole_folder: whole_folder >= 2)
    finally:
        watcher.stop()


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_missing_root_is_reported_and_can_be_watched_again(watched: Watcher, folder: Path, hints: Hints, how: str):
    folder.rename(folder.with_name("elsewhere"))
    if how == "deleted":
        for path in sorted(folder.with_name("elsewhere").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.with_name("elsewhere").rmdir()
    hints.wait_until(lambda _, whole_folder: whole_folder >= 1)
    assert not watched.alive
    with pytest.raises(FolderError, match="no longer exists"):
        watched.start()
    write(folder, {"a.py": "a\n"})
    watched.start()
    assert watched.alive
    fence(folder, hints)


def whole_folder_hints(hints: Hints) -> int:
    return hints.all.count(None)


def wait_for_loss(watcher: Watcher) -> None:
    deadline = time.monotonic() + LIMIT_S
    while watcher.alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["moved", "parent moved", "deleted and made anew"])
def test_root_that_comes_back_is_hinted(tmp_path: Path, hints: Hints, how: str):
    """Regression: until the regular comparison, five minutes later, nothing was followed."""
    root = tmp_path / "parent" / "folder"
    write(root, {"a.py": "a = 1\n", "pkg/b.py": "b = 1\n"})
    watcher = Watcher(root, FileFilter(root, config.Files()), hints.add, hints.warnings.append)
    watcher.start()
    try:
        away, aside = (root.parent if how == "parent moved" else root), tmp_path / "aside"
        if how.startswith("deleted"):
            shutil.rmtree(root)
        else:
            away.rename(aside)
        wait_for_loss(watcher)
        hints.wait_until(lambda _, whole_folder: whole_folder >= 1)
        with pytest.raises(FolderError):
            watcher.start()
        before = whole_folder_hints(hints)
        if how.startswith("deleted"):
            write(root, {"a.py": "a = 1\n", ".gitignore": "hidden.py\n", "pkg/b.py": "b = 1\n"})
        else:
            aside.rename(away)
        returned = time.monotonic()
        hints.wait_until(lambda _, whole_folder: whole_folder > before)
        assert time.monotonic() - returned < 5.0
        watcher.start()
        assert watcher.alive
        assert watcher.filter.is_ignored("hidden.py") == how.startswith("deleted")
        fence(root, hints, "pkg/fence.py")
    finally:
        watcher.stop()


def test_root_that_is_replaced_at_once_is_watched_again(watched: Watcher, folder: Path, hints: Hints):
    """A clone is swapped in faster than anybody looks: the watches are those of the old directory."""
    write(folder.with_name("other"), {"c.py": "c\n"})
    folder.rename(folder.with_name("old"))
    folder.with_name("other").rename(folder)
    wait_for_loss(watched)
    before = whole_folder_hints(hints)
    hints.wait_until(lambda _, whole_folder: whole_folder > before or whole_folder >= 2)
    watched.start()
    fence(folder, hints)


def test_root_that_stays_is_not_hinted(watched: Watcher, folder: Path, hints: Hints, monkeypatch: pytest.MonkeyPatch):
    checked = threading.Semaphore(0)
    real = watched._check_root
    monkeypatch.setattr(watched, "_check_root", lambda: (real(), checked.release()))
    for _ in range(2):
        assert checked.acquire(timeout=LIMIT_S)
    assert watched.alive
    assert hints.all == []


@pytest.mark.parametrize("what", ["info/exclude", "configuration", "index"])
def test_change_of_gits_rules_is_followed(git_repo: GitRepo, tmp_path: Path, hints: Hints, what: str):
    root = git_repo.root
    write(root, {".gitignore": "lib/\n", "lib/a.py": "x\n", "b.py": "x\n"})
    write(tmp_path, {"rules": "b.py\n"})
    watcher = Watcher(root, FileFilter(root, config.Files()), hints.add)
    watcher.start()
    try:
        assert watcher.filter.is_ignored("lib/a.py")
        assert not watcher.filter.is_ignored("b.py")
        if what == "index":
            git_repo.git("add", "-f", "lib/a.py")
        elif what == "configuration":
            git_repo.git("config", "core.excludesFile", str(tmp_path / "rules"))
        else:
            write(root, {".git/info/exclude": "b.py\n"})
        hints.wait_until(lambda _, whole_folder: whole_folder >= 2)  # the change, then the new watches
        assert watcher.filter.is_ignored("b.py") == (what != "index")
        assert watcher.filter.is_ignored("lib/a.py") == (what != "index")
        if what == "index":
            write(root, {"lib/a.py": "y\n"})
            hints.wait_until(lambda paths, _: "lib/a.py" in paths)
    finally:
        watcher.stop()


def test_stop_leaves_no_thread_and_no_descriptor(folder: Path, hints: Hints):
    def counts() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # objects of earlier tests must not be collected between the counts
    before = counts()
    for _ in range(5):
        watcher = Watcher(folder, FileFilter(folder, config.Files()), hints.add)
        watcher.start()
        watcher.start()
        watcher.stop()
        watcher.stop()
    assert counts() == before


# --- editors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", SAVE_STYLES)
def test_each_save_style_is_one_modification(folder: Path, save: Callable[[Path, str], None]):
    rules = FileFilter(folder, config.Files())
    batch = Coalescer(quiet_s=0.2, max_delay_s=5.0)
    watcher = Watcher(folder, rules, batch.add)
    watcher.start()
    try:
        held: Snapshot = scan(rules)
        for n in range(3):
            save(folder / "pkg/b.py", f"b = 'saved {n}'\n")
            found = scan(rules, held, hints=take_when_due(batch))
            assert changes(held, found) == {"pkg/b.py": "modified"}
            assert found == scan(rules)
            held = found
    finally:
        watcher.stop()


def take_when_due(batch: Coalescer) -> frozenset[str]:
    wait_until = time.monotonic() + LIMIT_S
    while (wait := batch.seconds_until_due()) != 0.0:
        assert time.monotonic() < wait_until
        time.sleep(0.01 if wait is None else min(wait, 0.05))
    hints = batch.take()
    assert hints is not None
    return hints


# --- batches ------------------------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_batch_is_due_after_the_quiet_time():
    clock = Clock()
    batch = Coalescer(0.5, 5.0, clock)
    assert batch.seconds_until_due() is None
    batch.add(frozenset({"a.py"}))
    clock.now += 0.3
    batch.add(frozenset({"b.py"}))
    assert batch.seconds_until_due() == pytest.approx(0.5)
    clock.now += 0.5
    assert batch.seconds_until_due() == 0.0
    assert batch.take() == {"a.py", "b.py"}
    assert batch.seconds_until_due() is None
    assert batch.take() == frozenset()


def test_batch_is_due_after_the_maximum_delay():
    clock = Clock()
    batch = Coalescer(0.5, 2.0, clock)
    for _ in range(5):
        batch.add(frozenset({"a.py"}))
        clock.now += 0.4
    assert batch.seconds_until_due() == 0.0


def test_whole_folder_hint_replaces_paths_until_the_batch_is_taken():
    batch = Coalescer(0.0, 0.0)
    batch.add(frozenset({"a.py"}))
    batch.add(None)
    batch.add(frozenset({"b.py"}))
    assert batch.seconds_until_due() == 0.0
    assert batch.take() is None
    batch.add(frozenset({"c.py"}))
    assert batch.take() == {"c.py"}


def test_too_many_paths_become_a_whole_folder_hint():
    batch = Coalescer(0.0, 0.0)
    for n in range(10_000):
        batch.add(frozenset({f"{n}.py"}))
    assert batch.take() is not None
    for n in range(10_001):
        batch.add(frozenset({f"{n}.py"}))
    assert batch.take() is None


# --- places -------------------------------------------------------------------------------------------------------


def test_git_is_busy_while_it_holds_its_lock(git_repo: GitRepo):
    git_repo.commit({"a.py": "a\n"})
    lock = git_repo.root / ".git/index.lock"
    assert not git_busy(git_repo.root)
    lock.touch()
    assert git_busy(git_repo.root)
    (git_repo.root / "sub").mkdir()
    assert git_busy(git_repo.root / "sub")
    past = time.time() - 200
    for path in (lock, git_repo.root / ".git/index", git_repo.root / ".git/HEAD"):
        os.utime(path, (past, past))
    assert not git_busy(git_repo.root)  # left by a killed git
    assert git_busy(git_repo.root, quiet_s=5.0)  # a long checkout that is still writing files
    os.utime(git_repo.root / ".git/index")
    assert git_busy(git_repo.root)
    past = time.time() - 4000
    os.utime(lock, (past, past))
    assert not git_busy(git_repo.root, quiet_s=5.0)


def test_rebase_that_waits_for_the_user_is_not_busy(git_repo: GitRepo, tmp_path: Path):
    state = git_repo.root / ".git/rebase-merge"
    state.mkdir()
    assert git_busy(git_repo.root)
    os.utime(state, (time.time() - 5, time.time() - 5))
    assert not git_busy(git_repo.root)
    assert not git_busy(tmp_path)


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:27 / /mnt rw shared:2 - tmpfs tmpfs rw
31 30 0:28 / /mnt/my\\040share rw shared:3 - nfs4 host:/x rw
32 22 0:29 / /mnt2 rw - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/mnt/x", "tmpfs"),
        ("/mnt/my share/x", "nfs4"),
        ("/mnt2", "fuse.sshfs"),
        ("/mnt22", "ext4"),
    ],
)
def test_file_system_type_of_a_path(path: str, kind: str):
    assert mounts.file_system_type(MOUNTS.splitlines(), path) == kind


def test_lock_dated_in_the_future_is_ignored(git_repo: GitRepo):
    """If the clock was set back after git was killed, its lock must not count as fresh until that time."""
    git_repo.commit({"a.py": "1\n"})
    lock = git_repo.root / ".git/index.lock"
    lock.write_text("")
    assert git_busy(git_repo.root)
    ahead = time.time() + 10.0
    os.utime(lock, (ahead, ahead))  # within the clock skew of another machine
    assert git_busy(git_repo.root)
    ahead = time.time() + 86_400.0
    os.utime(lock, (ahead, ahead))
    assert not git_busy(git_repo.root)
