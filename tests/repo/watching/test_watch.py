"""The watcher with real events of the real system. Waits are on conditions, each with a limit."""

import errno
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c2l_lsp import config
from c2l_lsp.errors import C2LError, FolderError
from c2l_lsp.repo.filter.files import FileFilter
from c2l_lsp.repo.history.snapshot import Snapshot
from c2l_lsp.repo.watching import mounts, watch
from c2l_lsp.repo.watching.watch import Coalescer, Watcher, git_busy
from tests.support.git_repositories import GitRepo, write
from tests.support.save_styles import SAVE_STYLES
from tests.support.snapshots import changes, scan

if sys.platform == "linux":
    from c2l_lsp.repo.watching import inotify

LIMIT_S = 20.0


class Seen:
    """Hints as they come, and a way to wait for them."""

    def __init__(self) -> None:
        self.hints: list[frozenset[str] | None] = []
        self.troubles: list[C2LError] = []
        self._news = threading.Condition()

    def add(self, hint: frozenset[str] | None) -> None:
        with self._news:
            self.hints.append(hint)
            self._news.notify_all()

    def until(self, wanted: Callable[[set[str], int], bool]) -> None:
        """Wait for `wanted(paths so far, Nones so far)`."""
        with self._news:
            assert self._news.wait_for(lambda: wanted(self.paths, self.hints.count(None)), LIMIT_S), self.hints

    @property
    def paths(self) -> set[str]:
        return set().union(*(hint for hint in self.hints if hint is not None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    write(root, {"a.py": "a = 1\n", "pkg/b.py": "b = 1\n"})
    return root


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def watched(folder: Path, seen: Seen) -> Iterator[Watcher]:
    watcher = Watcher(folder, FileFilter(folder, config.Files()), seen.add, seen.troubles.append)
    watcher.start()
    yield watcher
    watcher.stop()


def fence(root: Path, seen: Seen, name: str = "fence.py") -> None:
    """Everything before this has been told: events keep their order."""
    write(root, {name: "x = 1\n"})
    seen.until(lambda paths, _: name in paths)


def test_files_come_change_move_and_go(watched: Watcher, folder: Path, seen: Seen):
    assert watched.mode == "native"
    assert watched.alive
    write(folder, {"new.py": "x\n", "pkg/b.py": "b = 2\n", "notes.txt": "x"})
    (folder / "a.py").rename(folder / "moved.py")
    (folder / "pkg/b.py").unlink()
    seen.until(lambda paths, _: {"new.py", "pkg/b.py", "a.py", "moved.py"} <= paths)
    assert "notes.txt" not in seen.paths
    assert None not in seen.hints


def test_a_new_folder_and_what_was_put_in_it_at_once(watched: Watcher, folder: Path, seen: Seen):
    write(folder, {"x/y/z.py": "z\n"})
    seen.until(lambda paths, _: "x/y/z.py" in paths or "x" in paths or "x/y" in paths)
    fence(folder, seen, "x/y/later.py")


def test_a_moved_folder_is_hinted_at_both_ends(watched: Watcher, folder: Path, seen: Seen):
    (folder / "pkg").rename(folder / "lib")
    seen.until(lambda paths, _: {"pkg", "lib"} <= paths)
    fence(folder, seen, "lib/after.py")


def test_a_rename_of_letters_case_is_one_file_gone_and_one_come(watched: Watcher, folder: Path, seen: Seen):
    held: Snapshot = scan(watched.filter)
    (folder / "a.py").rename(folder / "A.py")
    seen.until(lambda paths, _: {"a.py", "A.py"} <= paths)
    found = scan(watched.filter, held, hints=frozenset({"a.py", "A.py"}))
    listed = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    assert set(found) == listed == {"A.py", "pkg/b.py"}
    assert found == scan(watched.filter)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes")
def test_modes_that_change_while_a_file_is_watched(watched: Watcher, folder: Path, seen: Seen):
    """A mode alone is no edit; a file that cannot be read is none of the folder's until it can be read again."""
    held: Snapshot = scan(watched.filter)
    (folder / "a.py").chmod(0o755)
    assert changes(held, scan(watched.filter, held, hints=frozenset({"a.py"}))) == {}
    (folder / "a.py").chmod(0)
    if not os.access(folder / "a.py", os.R_OK):  # root reads everything
        assert set(scan(watched.filter, held, hints=frozenset({"a.py"}))) == {"pkg/b.py"}
    (folder / "a.py").chmod(0o644)
    write(folder, {"a.py": "a = 2\n"})
    seen.until(lambda paths, _: "a.py" in paths)
    found = scan(watched.filter, held, hints=frozenset({"a.py"}))
    assert changes(held, found) == {"a.py": "modified"}


def test_reading_makes_no_events(watched: Watcher, folder: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch):
    """Not even events that are thrown away: they would fill the system's queue."""
    from watchdog.observers.inotify_c import InotifyEvent, InotifyFD

    write(folder, {f"many/m{i}.py": f"x = {i}\n" for i in range(300)})
    fence(folder, seen)
    before = len(seen.hints)
    names: set[bytes] = set()
    real = InotifyFD.handle_event

    def count(self: InotifyFD, event: InotifyEvent) -> None:
        names.add(event.name)
        real(self, event)

    monkeypatch.setattr(InotifyFD, "handle_event", count)
    for _ in range(3):
        scan(watched.filter)
    fence(folder, seen, "fence2.py")
    assert names <= {b"fence.py", b"fence2.py"}
    assert {path for hint in seen.hints[before:] for path in hint or ("everything",)} <= {"fence.py", "fence2.py"}


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_a_file_that_may_be_read_from_now_on_is_hinted(watched: Watcher, folder: Path, seen: Seen):
    (folder / "a.py").chmod(0o200)
    seen.until(lambda paths, _: "a.py" in paths)
    fence(folder, seen)
    seen.hints.clear()
    (folder / "a.py").chmod(0o600)
    seen.until(lambda paths, _: "a.py" in paths)
    assert None not in seen.hints


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_a_folder_that_opens_is_hinted_and_watched_and_its_times_are_not(
    folder: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
):
    """Whoever runs this may be allowed to read everything, so the system's answers are given here."""
    real, shut = os.access, {os.fsencode(folder / "pkg")}
    monkeypatch.setattr(os, "access", lambda path, mode: os.fsencode(path) not in shut and real(path, mode))
    watcher = Watcher(folder, FileFilter(folder, config.Files()), seen.add)
    watcher.start()
    try:
        (folder / "pkg").chmod(0o700)
        seen.until(lambda paths, _: "pkg" in paths)  # shut
        shut.clear()
        fence(folder, seen)
        seen.hints.clear()
        (folder / "pkg").chmod(0o755)
        seen.until(lambda paths, _: "pkg" in paths)  # open again
        fence(folder, seen, "pkg/inside.py")
        seen.hints.clear()
        for _ in range(50):
            os.utime(folder / "pkg")
            os.utime(folder)
        fence(folder, seen, "fence2.py")
        assert seen.paths <= {"fence2.py", "pkg/inside.py"}
        assert None not in seen.hints
    finally:
        watcher.stop()


def test_ignored_folders_are_not_watched(tmp_path: Path, seen: Seen):
    write(tmp_path, {".gitignore": "big/\n", "big/deep/a.py": "x\n", "node_modules/m/b.py": "x\n", "src/c.py": "x\n"})
    write(tmp_path, {".git/HEAD": "ref: refs/heads/main\n", ".git/objects/ab/x": "x"})
    watcher = Watcher(tmp_path, FileFilter(tmp_path, config.Files()), seen.add)
    watcher.start()
    try:
        assert watcher._observer is not None
        watches = watcher._observer.inotify._watch_for_wd.values()  # type: ignore[attr-defined]
        folders = {os.path.relpath(os.fsdecode(watch._initial_creation_path), tmp_path) for watch in watches}
        assert folders == {".", ".git", "src"}
        write(tmp_path, {"big/deep/a.py": "y\n", "node_modules/n/c.py": "y\n", ".git/objects/cd/y": "y"})
        fence(tmp_path, seen)
        assert {hint for hint in seen.hints if hint != frozenset({"fence.py"})} == set()
    finally:
        watcher.stop()


@pytest.mark.parametrize("path", [".gitignore", "pkg/.gitignore", ".c2lignore", "pkg/CACHEDIR.TAG"])
def test_a_rule_that_changes_means_look_at_everything(watched: Watcher, folder: Path, seen: Seen, path: str):
    write(folder, {path: "hidden.py\n"})
    seen.until(lambda _, everything: everything >= 1)


def test_the_watches_follow_the_rules(watched: Watcher, folder: Path, seen: Seen):
    write(folder, {".gitignore": "pkg/\n"})
    seen.until(lambda _, everything: everything >= 2)  # the change, and after the watches were set anew
    write(folder, {"pkg/quiet.py": "x\n"})
    fence(folder, seen)
    assert "pkg/quiet.py" not in seen.paths
    nones = seen.hints.count(None)
    (folder / ".gitignore").unlink()
    seen.until(lambda _, everything: everything >= nones + 2)
    write(folder, {"pkg/loud.py": "x\n"})
    seen.until(lambda paths, _: "pkg/loud.py" in paths)


def test_another_branch_means_look_at_everything(git_repo: GitRepo, seen: Seen):
    git_repo.commit({"a.py": "a\n"})
    git_repo.git("branch", "other")
    watcher = Watcher(git_repo.root, FileFilter(git_repo.root, config.Files()), seen.add)
    watcher.start()
    try:
        git_repo.git("add", "-A")  # writes the index, changes no file
        fence(git_repo.root, seen)
        assert None not in seen.hints
        git_repo.git("checkout", "-q", "other")
        seen.until(lambda _, everything: everything >= 1)
    finally:
        watcher.stop()


def test_a_linked_worktree_sees_its_own_branch(git_repo: GitRepo, tmp_path: Path, seen: Seen):
    git_repo.commit({"a.py": "a\n"})
    git_repo.git("branch", "third")
    git_repo.git("worktree", "add", "-q", "-b", "second", str(tmp_path / "linked"))
    watcher = Watcher(tmp_path / "linked", FileFilter(tmp_path / "linked", config.Files()), seen.add)
    watcher.start()
    try:
        git_repo.git("checkout", "-q", "third", cwd=tmp_path / "linked")
        seen.until(lambda _, everything: everything >= 1)
    finally:
        watcher.stop()


def test_an_overflowing_queue_means_look_at_everything(watched: Watcher, folder: Path, seen: Seen):
    """The symptom: with its reader stalled, the system drops most of a checkout's events and nothing says so."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 20_000:
        pytest.skip("a longer queue would take minutes to fill")
    assert watched._observer is not None
    reader = watched._observer.inotify  # type: ignore[attr-defined]
    one, two = folder / "o.py", folder / "t.py"
    with reader._lock:  # the reader needs it before it reads, so it stalls
        write(folder, {"o.py": "x\n", "t.py": "x\n"})
        for _ in range(most // 4 + 1000):  # in turns: equal events in a row count once
            one.rename(two)
            two.rename(one)
    seen.until(lambda _, everything: everything >= 1)
    assert watched.overflows == 1
    fence(folder, seen, "pkg/after.py")  # watches were set anew
    fence(folder, seen)


def test_a_storm_of_events_is_let_pass_and_means_look_at_everything(watched: Watcher, folder: Path, seen: Seen):
    """The symptom: a checkout of thousands of files kept the interpreter from completions, hint after hint."""
    reader = watched._observer.inotify  # type: ignore[union-attr]
    with reader._lock:  # so that all of them come at once
        write(folder, {f"storm/{number % 7}/s{number}.py": "x\n" for number in range(inotify.STORM)})
        write(folder, {f"s{number}.py": "x\n" for number in range(inotify.STORM)})
    seen.until(lambda _, everything: everything >= 1)
    assert watched.overflows == 1
    assert len(seen.paths) < 1.5 * inotify.STORM  # of twice as many files
    fence(folder, seen, "storm/3/after.py")  # what came in the storm is watched
    fence(folder, seen)


def test_it_can_be_stopped_in_a_storm(watched: Watcher, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inotify, "LONGEST_STORM_S", 60.0)
    monkeypatch.setattr(inotify, "STORM", 20)
    stop = threading.Event()

    def blow() -> None:
        while not stop.is_set():
            write(folder, {"blown.py": "x\n", "away.py": "x\n"})

    wind = threading.Thread(target=blow)
    wind.start()
    try:
        reader = watched._observer.inotify  # type: ignore[union-attr]
        deadline = time.monotonic() + LIMIT_S
        while not (reader._is_reading and reader._count > inotify.STORM):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        watched.stop()
        assert not reader.is_alive()
    finally:
        stop.set()
        wind.join()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
def test_no_more_watches_at_the_start_means_polling(
    folder: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refuse(*_: object) -> None:
        raise OSError(number, "no more")

    monkeypatch.setattr("watchdog.observers.inotify_c.InotifyFD.add_callback", refuse)
    watcher = Watcher(folder, FileFilter(folder, config.Files()), seen.add, seen.troubles.append, poll_s=0.05)
    watcher.start()
    try:
        assert watcher.mode == "polling"
        assert [type(trouble) for trouble in seen.troubles] == [FolderError]
        assert "max_user_watches" in str(seen.troubles[0])
        write(folder, {"pkg/b.py": "b = 22\n", "c.py": "c\n", "node_modules/x.py": "x\n"})
        (folder / "a.py").unlink()
        seen.until(lambda paths, _: {"pkg/b.py", "c.py", "a.py"} <= paths)
        assert "node_modules/x.py" not in seen.paths
    finally:
        watcher.stop()


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_no_more_watches_below_the_root_means_polling(
    folder: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, when: str
):
    """watchdog passes over a folder that it cannot watch, and its edits would never be seen."""
    from watchdog.observers.inotify_c import InotifyFD

    real = InotifyFD.add_callback

    def refuse(self: InotifyFD, path: bytes, *rest: object) -> object:
        if path.endswith((b"/deep", b"/pkg") if when == "at the start" else b"/deep"):
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        return real(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(InotifyFD, "add_callback", refuse)
    watcher = Watcher(folder, FileFilter(folder, config.Files()), seen.add, seen.troubles.append, poll_s=0.05)
    watcher.start()
    try:
        if when == "later":
            assert watcher.mode == "native"
            write(folder, {"deep/x.py": "x\n"})
            seen.until(lambda _, everything: everything >= 1)
        assert watcher.mode == "polling"
        assert len(seen.troubles) == 1
        write(folder, {"pkg/b.py": "b = 23\n", "deep/y.py": "y\n"})
        seen.until(lambda paths, _: {"pkg/b.py", "deep/y.py"} <= paths)
    finally:
        watcher.stop()


def test_polling_sees_another_branch_and_other_rules(git_repo: GitRepo, seen: Seen, monkeypatch: pytest.MonkeyPatch):
    git_repo.commit({"a.py": "a\n"})
    monkeypatch.setattr(watch, "is_remote", lambda _: True)
    watcher = Watcher(git_repo.root, FileFilter(git_repo.root, config.Files()), seen.add, poll_s=0.05)
    watcher.start()
    try:
        assert watcher.mode == "polling"
        git_repo.git("checkout", "-q", "-b", "other")
        seen.until(lambda _, everything: everything >= 1)
        write(git_repo.root, {".gitignore": "x\n"})
        seen.until(lambda _, everything: everything >= 2)
    finally:
        watcher.stop()


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_a_root_that_goes_is_told_and_can_come_back(watched: Watcher, folder: Path, seen: Seen, how: str):
    folder.rename(folder.with_name("elsewhere"))
    if how == "deleted":
        for path in sorted(folder.with_name("elsewhere").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.with_name("elsewhere").rmdir()
    seen.until(lambda _, everything: everything >= 1)
    assert not watched.alive
    with pytest.raises(FolderError, match="no longer exists"):
        watched.start()
    write(folder, {"a.py": "a\n"})
    watched.start()
    assert watched.alive
    fence(folder, seen)


def test_stopping_leaves_no_thread_and_no_descriptor(folder: Path, seen: Seen):
    def counts() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()  # what earlier tests left must not go in between
    before = counts()
    for _ in range(5):
        watcher = Watcher(folder, FileFilter(folder, config.Files()), seen.add)
        watcher.start()
        watcher.start()
        watcher.stop()
        watcher.stop()
    assert counts() == before


# --- editors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", SAVE_STYLES)
def test_each_way_of_saving_is_one_edit(folder: Path, save: Callable[[Path, str], None]):
    rules = FileFilter(folder, config.Files())
    batch = Coalescer(quiet_s=0.2, max_delay_s=5.0)
    watcher = Watcher(folder, rules, batch.add)
    watcher.start()
    try:
        held: Snapshot = scan(rules)
        for n in range(3):
            save(folder / "pkg/b.py", f"b = 'saved {n}'\n")
            found = scan(rules, held, hints=taken(batch))
            assert changes(held, found) == {"pkg/b.py": "modified"}
            assert found == scan(rules)
            held = found
    finally:
        watcher.stop()


def taken(batch: Coalescer) -> frozenset[str]:
    until = time.monotonic() + LIMIT_S
    while (wait := batch.seconds_until_due()) != 0.0:
        assert time.monotonic() < until
        time.sleep(0.01 if wait is None else min(wait, 0.05))
    hints = batch.take()
    assert hints is not None
    return hints


# --- batches ------------------------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_batch_is_ready_after_quiet():
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


def test_a_batch_does_not_wait_for_ever():
    clock = Clock()
    batch = Coalescer(0.5, 2.0, clock)
    for _ in range(5):
        batch.add(frozenset({"a.py"}))
        clock.now += 0.4
    assert batch.seconds_until_due() == 0.0


def test_everything_swallows_single_paths_and_ends_with_the_batch():
    batch = Coalescer(0.0, 0.0)
    batch.add(frozenset({"a.py"}))
    batch.add(None)
    batch.add(frozenset({"b.py"}))
    assert batch.seconds_until_due() == 0.0
    assert batch.take() is None
    batch.add(frozenset({"c.py"}))
    assert batch.take() == {"c.py"}


def test_too_many_paths_become_everything():
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
    assert not git_busy(git_repo.root)  # left behind by a killed git
    assert git_busy(git_repo.root, quiet_s=5.0)  # a long checkout: files are still being written
    os.utime(git_repo.root / ".git/index")
    assert git_busy(git_repo.root)
    past = time.time() - 4000
    os.utime(lock, (past, past))
    assert not git_busy(git_repo.root, quiet_s=5.0)


def test_a_rebase_that_waits_for_the_user_is_not_busy(git_repo: GitRepo, tmp_path: Path):
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
def test_the_file_system_of_a_path(path: str, kind: str):
    assert mounts.file_system(MOUNTS.splitlines(), path) == kind


def test_a_lock_from_the_future_is_not_waited_for(git_repo: GitRepo):
    """The clock was set back after git was killed: its lock would count as fresh until that time comes again."""
    git_repo.commit({"a.py": "1\n"})
    lock = git_repo.root / ".git/index.lock"
    lock.write_text("")
    assert git_busy(git_repo.root)
    ahead = time.time() + 10.0
    os.utime(lock, (ahead, ahead))  # another machine's clock
    assert git_busy(git_repo.root)
    ahead = time.time() + 86_400.0
    os.utime(lock, (ahead, ahead))
    assert not git_busy(git_repo.root)
