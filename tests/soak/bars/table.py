"""The table of bars: fault, criterion, full and short count, planted faults. Imports no torch."""

from __future__ import annotations

from c2l_lsp.errors import RequestError
from tests.soak.harness.bar import Bar

BARS: tuple[Bar, ...] = (
    Bar(
        "frames", "malformed frames and JSON-RPC bodies, a 64 MB message, a header without length",
        "an answer within 1 s, or exit within 2 s; never running without answering",
        500, 24, "hostile inputs", "protocol.frames:run", ("lenient", "silent", "numb"),
    ),
    Bar(
        "documents", "random documents × 50 edits in utf-8, utf-16 and utf-32, with lone surrogates",
        "the text always equals the editor's",
        10_000, 60, "documents", "protocol.documents:run", ("splitlines", "codepoints", "unpaired"),
    ),
    Bar(
        "replies", "random messages in random order: requests, edits, cancels, closes, repeated ids",
        "exactly one reply per request, no other replies",
        2_000, 6, "sessions of 40 messages", "protocol.replies:run", ("forget", "twice"),
    ),
    Bar(
        "save_styles", "saving as editors do it: in place, rename-over, backup and rename, swap files",
        "exactly one change is seen per save",
        700, 7, "saves", "files.saves:run", ("blind",),
    ),
    Bar(
        "odd_files", "1 GB file, FIFO, device, link loop, link out of the folder, bad UTF-8, NUL, line endings",
        "≤ 1 MiB read and ≤ 100 ms per file; no blocking, nothing outside the folder is read",
        200, 1, "rounds", "files.odd:run", ("follow", "unbounded"),
    ),
    Bar(
        "torn_saves", "kill −9 at random times while saving state; kill, ENOSPC and EIO at each write, rename, fsync",
        "no corrupt or mixed load, ≤ 1 generation lost, no embedding lost; errors reported, next save works",
        200, 6, "random kills", "storage.torn:run", ("in_place", "swallows"),
    ),
    Bar(
        "damaged_state", "bit flips, truncations, NaN in each tensor, an older schema, a damaged cache",
        "damaged state is set aside with a message and rebuilt from the repository",
        1_000, 60, "bit flips", "storage.damaged:run", ("unchecked", "believing"),
    ),
    Bar(
        "hostile_readings", "a readings database with views, triggers, other tables, impossible rows, junk",
        "it is set aside with a message within 8 s; the folder is learned again and watched, completions go on",
        225, 9, "databases", "storage.foreign:readings", ("any_schema", "believing"),
    ),
    Bar(
        "odd_state_files", "FIFOs, directories and links in the place of the files of a state directory",
        "none is opened or followed; it is set aside with a message, the folder is learned again and watched",
        350, 14, "odd files", "storage.foreign:odd_files", ("follows",),
    ),
    Bar(
        "power_loss", "loss of power at each write, rename and fsync of a save; what was not synced is there or not",
        "no corrupt or mixed load; a generation that was reported as saved is never lost",
        12, 3, "saves", "storage.power_loss:run", ("unsynced_files", "unsynced_directories"),
    ),
    Bar(
        "two_servers", "two servers on one folder",
        "one writes, the other only reads; no mixed state",
        100, 3, "races", "storage.torn:two", ("unlocked",),
    ),
    Bar(
        "full_disk", "a full disk (ENOSPC), a read-only one",
        "completions continue; the status reports it; state is saved again once there is room",
        10, 1, "rounds of both", "storage.disk:run", ("quiet", "resigned"),
    ),
    Bar(
        "hot_swaps", "adapter swaps under load",
        "one generation per reply; logits equal those after a fresh load",
        1_000, 12, "swaps", "protocol.swaps:run", ("half",),
    ),
    Bar(
        "secrets", "secrets in excluded places, and of many forms in other files",
        "none in state, prompt, log or messages: raw, base64, or as token ids",
        200, 40, "canaries", "security.secrets:run",
        ("open_filter", "unscreened", "peeks", "remembers", "prompts", "quotes", "chatty"),
    ),
    Bar(
        "excluded_change", "a change in an excluded file only",
        "state and adapter stay bit-identical",
        100, 4, "changes", "security.secrets:excluded", ("open_filter",),
    ),
    Bar(
        "no_network", "remote off",
        "server and engine open no network connection, and work in a namespace without a network",
        3, 1, "sessions", "security.network:run", ("calls_home", "calls_natively"),
    ),
    Bar(
        "hostile", "hostile model folder, adapter, checkpoint, state, workspace settings, URIs, git configuration",
        "nothing is executed; refused with the setting named",
        20, 1, "rounds", "security.hostile:run",
        ("trusting", "unpickles", "trusts_code", "obeys_git"),
    ),
    Bar(
        "matching", "ignore rules and texts made to be slow",
        "CPU time ≤ 50 ms for a rule and a path, ≤ 1 s for 512 kB of text, ≤ 2 s for 30,000 rules",
        1_000, 12, "hostile inputs", "files.matching:run", ("backtracks", "rescans"),
    ),
    Bar(
        "typing", "a token typed into an unsaved buffer between any two slices of a generation",
        "it is neither seen by the model nor in the state",
        100, 24, "typed tokens", "security.typing:run", ("rereads",),
    ),
    Bar(
        "untrusted", "a folder that the user does not trust",
        "completions work; no file is opened but ignore rules, git's configuration and index; nothing is stored",
        20, 1, "sessions", "security.untrusted:run", ("nosy", "keeps"),
    ),
    Bar(
        "cancels", "cancellation at random times",
        "one reply each; no decode step starts later than 50 ms after the cancellation (a started prefill is finished)",
        1_000, 8, "cancels", "protocol.cancels:run", ("deaf", "forget"),
    ),
    Bar(
        "editor_killed", "the editor ends: its pipe closes, or only its process is gone",
        "server and engine exit within 5 s",
        100, 2, "kills", "process.ends:run", ("stays",),
    ),
    Bar(
        "engine_faults", "engine killed, out of memory, CUDA error, NaN, hang at call 1–50",
        "the status reports it; engine back within 10 s, or safe mode; no request hangs",
        250, 2, "faults", "process.faults:run", ("given_up",),
    ),
    Bar(
        "edit_storm", "10,000 edits a minute",
        "completions' lag p99 ≤ 2 s; all that was typed is learned within 30 s; correct texts; queue: one text per "
        "document and 2 s of requests; RSS ≤ +5 % after warm-up",
        100_000, 300, "edits", "protocol.storm:run", ("hoards", "drops", "piles", "dawdles", "unlearning"),
    ),
    Bar(
        "checkout", "a checkout of 50,000 files while the watcher is stopped for 5 s",
        "overflow detected; changes applied within 60 s, in ≤ 1 bulk update of the index; completion p95 ≤ 1.5× idle",
        50_000, 400, "files", "files.checkout:run", ("unseen", "shrugs"),
    ),
    Bar(
        "folders", "many workspace folders",
        "all requests answered; descriptors, threads and watches bounded, and released on close",
        1_000, 8, "folders", "process.folders:run", ("kept_open",),
    ),
    Bar(
        "day", "the events of 24 h, compressed",
        "RSS ≤ +5 %; descriptors, threads and watches constant",
        30_000, 60, "events", "process.day:run", ("leaks",),
    ),
)  # fmt: skip


def select(names: str) -> list[Bar]:
    """The bars of a comma-separated list; "" is all. RequestError for an unknown name."""
    if not names:
        return list(BARS)
    known = {bar.name: bar for bar in BARS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise RequestError(f"Unknown bar {unknown[0]}. Known bars: {', '.join(known)}.")
    return [known[name] for name in wanted]
