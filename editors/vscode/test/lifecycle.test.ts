import assert from "node:assert/strict";
import { test } from "node:test";
import { findServer, type Launch, PROGRAM, type ServerSources, pythonOf, withoutPythonVariables } from "../src/discovery";
import { parse } from "../src/diskUse";
import { setUp, SetUpError, type SetUpTask } from "../src/environment";
import { MissingServerPrompt } from "../src/missingServer";
import { fixesFor, isShown, levelOf, OpenMessages } from "../src/problems";
import { CrashBudget, CoalescedJob } from "../src/restarts";
import { Switches } from "../src/switches";
import { invalidServerSetting } from "../src/invalidServer";
import { memento } from "./memento";
import problems from "./problems.json"; // written by tests/editors/vscode/test_problems.py

function sources(change: Partial<ServerSources>): ServerSources {
  return {
    path: "", interpreter: "", args: [], ownPython: "/own/python", trusted: true,
    activePython: () => Promise.resolve(undefined),
    hasServer: () => Promise.resolve(false),
    onSearchPath: () => Promise.resolve(undefined),
    ...change,
  };
}

test("findServer tries the sources in order", async () => {
  const all = sources({
    path: "/s", interpreter: "/i", activePython: () => Promise.resolve("/a"), hasServer: () => Promise.resolve(true),
    onSearchPath: () => Promise.resolve("/bin/c2l-lsp"), args: ["--x"],
  });
  assert.deepEqual(await findServer(all), { command: "/s", args: ["serve", "--stdio", "--x"], source: "path" });
  assert.equal((await findServer({ ...all, path: "" }))?.command, "/i");
  const named = { ...all, path: "", interpreter: "" };
  const found = await findServer(named);
  assert.deepEqual([found?.command, found?.args.slice(0, 4)], ["/a", ["-E", "-c", PROGRAM, "serve"]]);
  assert.equal((await findServer({ ...named, activePython: () => Promise.resolve(undefined) }))?.command, "/own/python");
  assert.equal((await findServer({ ...named, hasServer: () => Promise.resolve(false) }))?.source, "search-path");
  assert.equal(await findServer(sources({})), undefined);
});

test("a process gets no variable that makes Python import from other folders", () => {
  const environment = { PATH: "/bin", PYTHONPATH: "/project", PythonHome: "/project", PYTHONUTF8: "1" };
  assert.deepEqual(withoutPythonVariables(environment), { PATH: "/bin", PYTHONUTF8: "1" });
});

test("findServer does not probe the interpreter of an untrusted workspace", async () => {
  const probed: string[] = [];
  const untrusted = sources({
    trusted: false,
    activePython: () => Promise.resolve("/workspace/.venv/bin/python"),
    hasServer: (python) => {
      probed.push(python);
      return Promise.resolve(false);
    },
  });
  await findServer(untrusted);
  assert.deepEqual(probed, ["/own/python"]);
});

test("a server named in the settings that cannot start is reported with its setting; other failures are retried", async () => {
  const launch: Launch = { command: "/x", args: [], source: "interpreter" };
  const has = (answer: boolean) => () => Promise.resolve(answer);
  const error = (code: string): NodeJS.ErrnoException => Object.assign(new Error(code), { code });
  const path = await invalidServerSetting({ ...launch, source: "path" }, error("ENOENT"), has(true));
  assert.deepEqual(path, { setting: "c2l.server.path", sentence: "c2l.server.path names /x, which does not exist." });
  assert.match((await invalidServerSetting(launch, error("EACCES"), has(true)))?.sentence ?? "", /may not be run/);
  assert.match((await invalidServerSetting(launch, undefined, has(false)))?.sentence ?? "", /has no c2l-lsp package/);
  assert.equal(await invalidServerSetting(launch, undefined, has(true)), undefined);
  assert.equal(await invalidServerSetting({ ...launch, source: "path" }, error("EMFILE"), has(false)), undefined);
  assert.equal(await invalidServerSetting({ ...launch, source: "search-path" }, error("ENOENT"), has(false)), undefined);
});

test("pythonOf returns the path for the platform", () => {
  assert.ok(pythonOf("/e", "linux").endsWith("/e/bin/python"));
  assert.match(pythonOf("/e", "win32"), /Scripts.python\.exe$/);
});

test("requests during a run share one following run", async () => {
  let runs = 0;
  const release: (() => void)[] = [];
  const restarts = new CoalescedJob(() => {
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

test("a failed run does not prevent the waiting run", async () => {
  let runs = 0;
  const restarts = new CoalescedJob(async () => {
    runs += 1;
    await Promise.resolve();
    if (runs === 1) throw new Error("first");
  });
  const [first, second] = [restarts.request(), restarts.request()];
  await assert.rejects(first);
  await second;
  assert.equal(runs, 2);
});

test("the crash budget ends after its delays, and crashes outside the window do not count", () => {
  const budget = new CrashBudget([1, 2], 1000);
  assert.deepEqual([budget.recordCrash(0), budget.recordCrash(10), budget.recordCrash(20)], [1, 2, undefined]);
  budget.reset();
  assert.equal(budget.recordCrash(30), 1);
  assert.equal(budget.recordCrash(5000), 1);
});

function setUpTask(change: Partial<SetUpTask>): SetUpTask & { steps: string[]; removed: string[] } {
  const steps: string[] = [];
  const removed: string[] = [];
  return {
    basePythons: ["old", "python3"], folder: "/e", python: "/e/bin/python", requirement: "c2l-lsp",
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

test("setUp uses the first Python that is new enough", async () => {
  const ran: string[] = [];
  const given = setUpTask({});
  await setUp({ ...given, run: (c, args, l, s) => { ran.push(`${c} ${args[1] ?? ""}`); return given.run(c, args, l, s); } }, new AbortController().signal);
  assert.deepEqual(ran.slice(2), ["python3 venv", "/e/bin/python pip", "/e/bin/python import c2l_lsp"]);
  assert.equal(given.steps.length, 4);
  assert.deepEqual(given.removed, []);
});

test("setUp without a usable Python fails with a sentence that names the required version", async () => {
  const none = setUpTask({ run: () => Promise.reject(new Error("none")) });
  await assert.rejects(setUp(none, new AbortController().signal), (error) => error instanceof SetUpError && error.message.includes("3.10"));
});

test("setUp removes the environment after a failure or cancellation", async () => {
  const fails = setUpTask({ run: (_c, args) => (args[1] === "pip" ? Promise.reject(new Error("no network")) : Promise.resolve()) });
  await assert.rejects(setUp(fails, new AbortController().signal), /no network/);
  assert.deepEqual(fails.removed, ["/e"]);
  const abort = new AbortController();
  const cancelled = setUpTask({
    run: (_c, args) => {
      if (args[1] === "pip") abort.abort();
      return abort.signal.aborted ? Promise.reject(new Error("aborted")) : Promise.resolve();
    },
  });
  await assert.rejects(setUp(cancelled, abort.signal), { name: "AbortError" });
  assert.deepEqual(cancelled.removed, ["/e"]);
});

test("each problem has the button that fixes it", () => {
  const first = Object.fromEntries(Object.entries(problems).map(([name, problem]) => [name, fixesFor(problem)[0]?.title]));
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
    "disk full": "Show Status",
  });
  assert.deepEqual(fixesFor(problems["wrong value"])[0]?.args, ["c2l.completion.debounceMs"]);
  assert.deepEqual(fixesFor(problems["wrong for a folder"])[0]?.args, ["c2l.files.ignoreFile"]);
  assert.deepEqual(fixesFor(problems["wrong in the user's file"])[0]?.args, [problems["wrong in the user's file"].file]);
  assert.deepEqual([levelOf(problems["no such model"]), levelOf(problems["disk full"])], ["error", "warning"]);
});

test("switches are persisted, and a snooze expires", () => {
  const keep = memento();
  const first = new Switches(keep, () => 0);
  first.setAll(false);
  first.setDocument("file:///a", true);
  first.setDocument("file:///b", false);
  first.setDocument("file:///c", false);
  first.forgetDocument("file:///c");
  first.setSnooze(60);
  first.setAdapter("/f", false);
  first.setAdapter("/g", false);
  first.setAdapter("/g", true);
  const documents = { "file:///a": true, "file:///b": false };
  assert.deepEqual(new Switches(keep, () => 0).state(), { off: true, documents, snoozedUntil: 60, adaptersOff: ["/f"] });
  const later = new Switches(keep, () => 61_000);
  assert.equal(later.state().snoozedUntil, 0);
  assert.deepEqual([later.isOn("file:///a"), later.isOn("file:///b")], [true, false]);
  for (let number = 0; number < 300; number += 1) later.setDocument(`file:///${number}`, false);
  assert.equal(Object.keys(later.state().documents ?? {}).length, 200);
});

test("the missing server is reported once per window, and never after the user silenced it", () => {
  const keep = memento();
  const missing = new MissingServerPrompt(keep);
  assert.deepEqual([missing.shouldPrompt(), missing.shouldPrompt(), new MissingServerPrompt(keep).shouldPrompt()], [true, false, true]);
  missing.silence();
  assert.equal(new MissingServerPrompt(keep).shouldPrompt(), false);
  missing.serverFound();
  assert.equal(missing.shouldPrompt(), true, "reported again after the server was found and lost");
});

test("notifications follow c2l.showNotifications, and the same one is not shown twice at a time", () => {
  assert.deepEqual([isShown("warning", "onError"), isShown("error", "onError"), isShown("error", "off")], [false, true, false]);
  const open = new OpenMessages();
  assert.deepEqual([open.add("a"), open.add("a"), open.add("b")], [true, false, true]);
  open.remove("a");
  assert.equal(open.add("a"), true);
});

test("disk use is read from the command line's JSON", () => {
  assert.deepEqual([...parse('{"root": "/r", "folders": [{"folder": "/f", "mb": 1.5}]}')], [["/f", 1.5]]);
  assert.throws(() => parse("Usage: c2l-lsp"));
});
