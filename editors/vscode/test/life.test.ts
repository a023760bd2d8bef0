import assert from "node:assert/strict";
import { test } from "node:test";
import { findServer, type Launch, type Places, pythonOf } from "../src/discovery";
import { parse } from "../src/diskUse";
import { setUp, SetUpError, type Work } from "../src/environment";
import type { Keep } from "../src/history";
import { Missing } from "../src/missing";
import { fixesFor, isWanted, levelOf, Open } from "../src/problems";
import { CrashBudget, Restarts } from "../src/restarts";
import { Switches } from "../src/switches";
import { unusable } from "../src/unusable";
import told from "./problems.json"; // what the server sends: tests/editors/vscode/test_problems.py

function places(change: Partial<Places>): Places {
  return {
    path: "", interpreter: "", args: [], ownPython: "/own/python", trusted: true,
    activePython: () => Promise.resolve(undefined),
    hasServer: () => Promise.resolve(false),
    onSearchPath: () => Promise.resolve(undefined),
    ...change,
  };
}

test("the places are tried in order", async () => {
  const all = places({
    path: "/s", interpreter: "/i", activePython: () => Promise.resolve("/a"), hasServer: () => Promise.resolve(true),
    onSearchPath: () => Promise.resolve("/bin/c2l-lsp"), args: ["--x"],
  });
  assert.deepEqual(await findServer(all), { command: "/s", args: ["serve", "--stdio", "--x"], from: "path" });
  assert.equal((await findServer({ ...all, path: "" }))?.command, "/i");
  const named = { ...all, path: "", interpreter: "" };
  const found = await findServer(named);
  assert.deepEqual([found?.command, found?.args.slice(0, 2)], ["/a", ["-m", "c2l_lsp"]]);
  assert.equal((await findServer({ ...named, activePython: () => Promise.resolve(undefined) }))?.command, "/own/python");
  assert.equal((await findServer({ ...named, hasServer: () => Promise.resolve(false) }))?.from, "search-path");
  assert.equal(await findServer(places({})), undefined);
});

test("an untrusted workspace's interpreter is not even asked", async () => {
  const asked: string[] = [];
  const untrusted = places({
    trusted: false,
    activePython: () => Promise.resolve("/workspace/.venv/bin/python"),
    hasServer: (python) => {
      asked.push(python);
      return Promise.resolve(false);
    },
  });
  await findServer(untrusted);
  assert.deepEqual(asked, ["/own/python"]);
});

test("what the user named and can never start is told with its setting; all else is tried again", async () => {
  const launch: Launch = { command: "/x", args: [], from: "interpreter" };
  const has = (answer: boolean) => () => Promise.resolve(answer);
  const error = (code: string): NodeJS.ErrnoException => Object.assign(new Error(code), { code });
  const path = await unusable({ ...launch, from: "path" }, error("ENOENT"), has(true));
  assert.deepEqual(path, { setting: "c2l.server.path", sentence: "c2l.server.path names /x, which does not exist." });
  assert.match((await unusable(launch, error("EACCES"), has(true)))?.sentence ?? "", /may not be run/);
  assert.match((await unusable(launch, undefined, has(false)))?.sentence ?? "", /has no c2l-lsp package/);
  assert.equal(await unusable(launch, undefined, has(true)), undefined);
  assert.equal(await unusable({ ...launch, from: "path" }, error("EMFILE"), has(false)), undefined);
  assert.equal(await unusable({ ...launch, from: "search-path" }, error("ENOENT"), has(false)), undefined);
});

test("the Python of an environment is where the platform has it", () => {
  assert.ok(pythonOf("/e", "linux").endsWith("/e/bin/python"));
  assert.match(pythonOf("/e", "win32"), /Scripts.python\.exe$/);
});

test("restarts queue: one runs, the others share one more", async () => {
  let runs = 0;
  const release: (() => void)[] = [];
  const restarts = new Restarts(() => {
    runs += 1;
    return new Promise((resolve) => release.push(resolve));
  });
  const first = restarts.request();
  const [second, third] = [restarts.request(), restarts.request()];
  release.shift()?.();
  await first;
  await new Promise(setImmediate);
  assert.equal(runs, 2);
  release.shift()?.();
  await Promise.all([second, third]);
  assert.equal(runs, 2);
});

test("a start that fails does not stop the one that waits", async () => {
  let runs = 0;
  const restarts = new Restarts(async () => {
    runs += 1;
    await Promise.resolve();
    if (runs === 1) throw new Error("first");
  });
  const [first, second] = [restarts.request(), restarts.request()];
  await assert.rejects(first);
  await second;
  assert.equal(runs, 2);
});

test("a server that keeps ending is given up, and old endings are forgotten", () => {
  const budget = new CrashBudget([1, 2], 1000);
  assert.deepEqual([budget.spend(0), budget.spend(10), budget.spend(20)], [1, 2, undefined]);
  budget.reset();
  assert.equal(budget.spend(30), 1);
  assert.equal(budget.spend(5000), 1);
});

function work(change: Partial<Work>): Work & { steps: string[]; removed: string[] } {
  const steps: string[] = [];
  const removed: string[] = [];
  return {
    bases: ["old", "python3"], folder: "/e", python: "/e/bin/python", requirement: "c2l-lsp",
    run: (command) => (command === "old" ? Promise.reject(new Error("3.8")) : Promise.resolve()),
    remove: (folder) => {
      removed.push(folder);
      return Promise.resolve();
    },
    onLine: () => undefined,
    onStep: (step) => {
      steps.push(step);
    },
    steps, removed, ...change,
  };
}

test("the first usable Python becomes the base", async () => {
  const ran: string[] = [];
  const given = work({});
  await setUp({ ...given, run: (c, args, l, s) => { ran.push(`${c} ${args[1] ?? ""}`); return given.run(c, args, l, s); } }, new AbortController().signal);
  assert.deepEqual(ran.slice(2), ["python3 venv", "/e/bin/python pip", "/e/bin/python import c2l_lsp"]);
  assert.equal(given.steps.length, 4);
  assert.deepEqual(given.removed, []);
});

test("without a Python the sentence says what to do", async () => {
  const none = work({ run: () => Promise.reject(new Error("none")) });
  await assert.rejects(setUp(none, new AbortController().signal), (error) => error instanceof SetUpError && error.message.includes("3.10"));
});

test("what failed or was cancelled is removed", async () => {
  const fails = work({ run: (_c, args) => (args[1] === "pip" ? Promise.reject(new Error("no network")) : Promise.resolve()) });
  await assert.rejects(setUp(fails, new AbortController().signal), /no network/);
  assert.deepEqual(fails.removed, ["/e"]);
  const abort = new AbortController();
  const cancelled = work({
    run: (_c, args) => {
      if (args[1] === "pip") abort.abort();
      return abort.signal.aborted ? Promise.reject(new Error("aborted")) : Promise.resolve();
    },
  });
  await assert.rejects(setUp(cancelled, abort.signal), { name: "AbortError" });
  assert.deepEqual(cancelled.removed, ["/e"]);
});

test("each problem has its fixing button", () => {
  const first = Object.fromEntries(Object.entries(told).map(([name, problem]) => [name, fixesFor(problem)[0]?.title]));
  assert.deepEqual(first, {
    "unknown key": "Open Settings",
    "wrong value": "Open Settings",
    "not for a workspace": "Open Settings",
    "looser than the user's": "Open Settings",
    "wrong in the user's file": "Open File",
    "wrong for a folder": "Open Settings",
    "no model in the folder": "Select Model…",
    "no such model": "Select Model…",
    "the engine ended": "Restart",
    "disk full": "Why",
  });
  assert.deepEqual(fixesFor(told["wrong value"])[0]?.args, ["c2l.completion.debounceMs"]);
  assert.deepEqual(fixesFor(told["wrong for a folder"])[0]?.args, ["c2l.files.ignoreFile"]);
  assert.deepEqual(fixesFor(told["wrong in the user's file"])[0]?.args, [told["wrong in the user's file"].file]);
  assert.deepEqual([levelOf(told["no such model"]), levelOf(told["disk full"])], ["error", "warning"]);
});

function memento(): Keep {
  const kept: Record<string, unknown> = {};
  return {
    get: <T>(key: string) => kept[key] as T | undefined,
    update: (key, value) => {
      kept[key] = structuredClone(value);
      return Promise.resolve();
    },
  };
}

test("switches outlive the window, and a snooze ends", () => {
  const keep = memento();
  const first = new Switches(keep, () => 0);
  first.everything(false);
  first.document("file:///a", true);
  first.document("file:///b", false);
  first.document("file:///c", false);
  first.closed("file:///c");
  first.snoozed(60);
  first.adapter("/f", false);
  first.adapter("/g", false);
  first.adapter("/g", true);
  const documents = { "file:///a": true, "file:///b": false };
  assert.deepEqual(new Switches(keep, () => 0).state(), { off: true, documents, snoozedUntil: 60, adaptersOff: ["/f"] });
  const later = new Switches(keep, () => 61_000);
  assert.equal(later.state().snoozedUntil, 0);
  assert.deepEqual([later.isOn("file:///a"), later.isOn("file:///b")], [true, false]);
  for (let number = 0; number < 300; number += 1) later.document(`file:///${number}`, false);
  assert.equal(Object.keys(later.state().documents ?? {}).length, 200);
});

test("that the server is missing is told once, and not to who does not want to hear it", () => {
  const keep = memento();
  const missing = new Missing(keep);
  assert.deepEqual([missing.tells(), missing.tells(), new Missing(keep).tells()], [true, false, true]);
  missing.silence();
  assert.equal(new Missing(keep).tells(), false);
  missing.found();
  assert.equal(missing.tells(), true, "lost after it was there");
});

test("notifications are as loud as wished, and one at a time", () => {
  assert.deepEqual([isWanted("warning", "onError"), isWanted("error", "onError"), isWanted("error", "off")], [false, true, false]);
  const open = new Open();
  assert.deepEqual([open.begin("a"), open.begin("a"), open.begin("b")], [true, false, true]);
  open.end("a");
  assert.equal(open.begin("a"), true);
});

test("disk use is read from the command line's JSON", () => {
  assert.deepEqual([...parse('{"root": "/r", "folders": [{"folder": "/f", "mb": 1.5}]}')], [["/f", 1.5]]);
  assert.throws(() => parse("Usage: c2l-lsp"));
});
