"""The table: every bar with its full count, its short one, and its planted faults. Imports nothing heavy."""

from __future__ import annotations

from c2l_lsp.errors import RequestError
from tests.soak.harness.bar import Bar

BARS: tuple[Bar, ...] = (
    Bar(
        "frames", "malformed frames and JSON-RPC bodies, a 64 MB message, a header without length",
        "a clear answer ≤ 1 s or exit ≤ 2 s; never alive but deaf",
        500, 12, "hostile inputs", "protocol.frames:run", ("lenient", "silent"),
    ),
    Bar(
        "documents", "random documents × 50 edits, each in utf-8, utf-16 and utf-32, halves of surrogates too",
        "text equal to the editor's, always",
        10_000, 60, "documents", "protocol.documents:run", ("splitlines", "codepoints", "unpaired"),
    ),
    Bar(
        "replies", "random messages in any order: requests, edits, cancels, closes, repeated ids",
        "one reply per request, none for anything else",
        2_000, 6, "sessions of 40 messages", "protocol.replies:run", ("forget", "twice"),
    ),
    Bar(
        "save_styles", "editors' ways of saving (in place, rename-over, backup and rename, swap files)",
        "exactly one edit each",
        700, 7, "saves", "files.saves:run", ("blind",),
    ),
    Bar(
        "odd_files", "1 GB, FIFO, device, link loop, link out of it, bad UTF-8, NUL, endings, astral characters",
        "≤ 1 MiB read, ≤ 100 ms each, no block, no escape",
        200, 1, "rounds", "files.odd:run", ("follow", "unbounded"),
    ),
    Bar(
        "torn_saves", "kill −9 at random moments of saving state, and kill, ENOSPC, EIO at each write, rename, fsync",
        "0 corrupt loads, 0 mixed generations, ≤ 1 generation lost, no reading lost; errors told, then saved again",
        200, 6, "random kills", "storage.torn:run", ("in_place", "swallows"),
    ),
    Bar(
        "damaged_state", "bit flips, a fifth as many truncations, NaN in each tensor, an older schema, a damaged cache",
        "all set aside with a message, rebuilt from the repository",
        1_000, 60, "bit flips", "storage.damaged:run", ("unchecked", "believing"),
    ),
    Bar(
        "two_servers", "two servers on one folder",
        "one writes, the other only reads; nothing is mixed",
        100, 3, "races", "storage.torn:two", ("unlocked",),
    ),
    Bar(
        "full_disk", "a full disk (ENOSPC), a read-only one",
        "completions go on; status says so; kept again once there is room",
        10, 1, "rounds of both", "storage.disk:run", ("quiet", "resigned"),
    ),
    Bar(
        "hot_swaps", "hot swaps of adapters under load",
        "one generation per reply; logits equal to a fresh load",
        1_000, 12, "swaps", "protocol.swaps:run", ("half",),
    ),
    Bar(
        "secrets", "planted secrets in 40 kinds of places",
        "0 in state, prompt, log, wire: raw, base64, or as token ids",
        200, 40, "canaries", "security.secrets:run",
        ("open_filter", "peeks", "remembers", "prompts", "quotes", "chatty"),
    ),
    Bar(
        "excluded_change", "a change in an excluded file only",
        "state and adapter bit-identical",
        100, 4, "changes", "security.secrets:excluded", ("open_filter",),
    ),
    Bar(
        "no_network", "remote off",
        "0 network connections of server and engine; all works in a namespace without a network",
        3, 1, "sessions", "security.network:run", ("calls_home", "calls_natively"),
    ),
    Bar(
        "hostile", "hostile model folder, adapter, checkpoint, state, workspace settings, URIs, git configuration",
        "nothing executed; refused with the key named",
        20, 1, "rounds", "security.hostile:run",
        ("trusting", "unpickles", "trusts_code", "obeys_git"),
    ),
    Bar(
        "cancels", "cancels at random times",
        "a reply each, work stopped ≤ 1 decode step + 50 ms: no step begins later (a prompt under way is read)",
        1_000, 8, "cancels", "protocol.cancels:run", ("deaf", "forget"),
    ),
    Bar(
        "editor_killed", "the editor killed (pipe closed, or only its process gone)",
        "server and engine gone ≤ 5 s, no orphan",
        100, 2, "kills", "process.ends:run", ("stays",),
    ),
    Bar(
        "engine_faults", "engine killed, out of memory, CUDA error, NaN, hang at call 1–50",
        "the editor sees a status, engine back ≤ 10 s or safe mode; no request hangs",
        250, 2, "faults", "process.faults:run", ("given_up",),
    ),
    Bar(
        "edit_storm", "10,000 edits a minute",
        "lag p99 ≤ 2 s; texts as typed; in the queue a text a document, 2 s of answers; RSS ≤ +5 % after warm-up",
        100_000, 300, "edits", "protocol.storm:run", ("hoards", "drops", "piles"),
    ),
    Bar(
        "checkout", "a checkout of 50,000 files while the watcher stands still for 5 s",
        "overflow seen; every change folded ≤ 60 s; ≤ 1 bulk update; completions' p95 ≤ 1.5× idle",
        50_000, 400, "files", "files.checkout:run", ("unseen", "shrugs"),
    ),
    Bar(
        "folders", "many workspace folders",
        "all answered; descriptors, threads and watches per folder bounded, and given back",
        1_000, 8, "folders", "process.folders:run", ("kept_open",),
    ),
    Bar(
        "day", "24 h of events compressed",
        "RSS ≤ +5 %; descriptors, threads, watches flat",
        30_000, 60, "events", "process.day:run", ("leaks",),
    ),
)  # fmt: skip


def select(names: str) -> list[Bar]:
    """The bars of a comma-separated list; "" is all. RequestError names one that is not there."""
    if not names:
        return list(BARS)
    known = {bar.name: bar for bar in BARS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise RequestError(f"There is no bar {unknown[0]}; there are {', '.join(known)}.")
    return [known[name] for name in wanted]
