"""Changes between snapshots."""

from c2l_lsp.repo.history.diff import DiffBatch, FileDiff, between
from c2l_lsp.repo.history.snapshot import Entry, Snapshot


def entry(content: str, mtime_ns: int = 1) -> Entry:
    return Entry(content.encode().ljust(16), len(content), mtime_ns)


def snapshot(**files: str) -> Snapshot:
    return {f"{path.replace('__', '/')}.py": entry(content) for path, content in files.items()}


def kinds(old: Snapshot, new: Snapshot) -> list[tuple[str, str | None, str]]:
    return [(diff.kind, diff.old_path, diff.path) for diff in between(old, new).diffs]


def test_added_modified_deleted():
    old, new = snapshot(a="1", b="2", c="3"), snapshot(a="1", b="22", d="4")
    assert between(old, new, "save") == DiffBatch(
        (
            FileDiff("b.py", "modified", None, entry("2"), entry("22")),
            FileDiff("c.py", "deleted", None, entry("3"), None),
            FileDiff("d.py", "added", None, None, entry("4")),
        ),
        "save",
    )


def test_only_content_counts():
    batch = between({"a.py": entry("1", 1)}, {"a.py": entry("1", 99)})
    assert batch.diffs == ()
    assert not batch


def test_equal_content_at_a_new_path_is_a_rename():
    assert kinds(snapshot(a="1", b="2"), snapshot(a="1", c="2")) == [("renamed", "b.py", "c.py")]


def test_a_copy_is_no_rename():
    assert kinds(snapshot(a="1"), snapshot(a="1", b="1")) == [("added", None, "b.py")]


def test_empty_files_are_never_renamed():
    assert kinds(snapshot(a=""), snapshot(b="")) == [("deleted", None, "a.py"), ("added", None, "b.py")]


def test_equal_names_are_paired_first_and_each_file_once():
    old = snapshot(x__a="1", x__b="1", x__c="1")
    new = snapshot(y__c="1", y__b="1", z__new="1", z__newer="1")
    assert kinds(old, new) == [
        ("renamed", "x/b.py", "y/b.py"),
        ("renamed", "x/c.py", "y/c.py"),
        ("renamed", "x/a.py", "z/new.py"),
        ("added", None, "z/newer.py"),
    ]


def test_a_swap_is_two_edits():
    assert kinds(snapshot(a="1", b="2"), snapshot(a="2", b="1")) == [
        ("modified", None, "a.py"),
        ("modified", None, "b.py"),
    ]


def test_there_and_back_is_nothing():
    old, new = snapshot(a="1", b="2"), snapshot(c="1", b="3")
    forth, back = between(old, new), between(new, old)
    assert {(d.old, d.new) for d in forth.diffs} == {(d.new, d.old) for d in back.diffs}
