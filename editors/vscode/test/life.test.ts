import assert from "node:assert/strict";
import { test } from "node:test";
import { findServer, type Places, pythonOf } from "../src/discovery";
import { parse } from "../src/diskUse";
import { setUp, SetUpError, type Work } from "../src/environment";
import { fixesFor, isWanted, Open } from "../src/problems";
import { CrashBudget, Restarts } from "../src/restarts";

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
  assert.equal(fixesFor("c2l.completion.debounceMs in the workspace settings is left at its default: Expected `int`.")[0]?.args?.[0], "c2l.completion.debounceMs");
  assert.equal(fixesFor("c2l.server.path is set in the workspace settings: only user settings may set it.")[0]?.title, "Open Settings");
  assert.equal(fixesFor("The model x/y cannot be found.")[0]?.command, "c2l.selectModel");
  assert.equal(fixesFor("The engine is not running. c2l.restartServer starts it again.")[0]?.command, "c2l.restartServer");
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
