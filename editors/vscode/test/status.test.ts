import assert from "node:assert/strict";
import { test } from "node:test";
import { type AdapterStatus, Reason, State, type Status } from "../src/protocol";
import { statusDisplay, accessibleLabel } from "../src/statusText";
import { menuEntries } from "../src/menu";
import { statusPage } from "../src/statusPage";
import { Store, type View } from "../src/view";

const ADAPTER: AdapterStatus = {
  folder: "/f", generation: 3, pendingFiles: 0, updatedAt: 1, enabled: true, kind: "memory", state: "ready", files: 9, scale: 1, message: "", deep: "",
};
const STATUS: Status = {
  kind: "Normal", busy: false, message: "Ready.", state: State.READY, model: "c2l-nano", device: "cpu", adapter: ADAPTER, latencyMs: { p50: 12.3, p95: 40 },
};

function view(change: Partial<View> = {}): View {
  return { ...new Store().view, processState: "running", status: STATUS, adapter: ADAPTER, language: "python", ...change };
}

function text(change: Partial<View>): string {
  return statusDisplay(view(change)).text;
}

test("ready shows the generation, the number of waiting files, or the base model", () => {
  assert.equal(text({}), "C2L g3");
  assert.equal(text({ adapter: { ...ADAPTER, pendingFiles: 2 } }), "C2L g3 +2");
  assert.equal(text({ adapter: { ...ADAPTER, enabled: false } }), "C2L base");
  assert.equal(text({ adapter: undefined }), "C2L");
});

test("an untrusted workspace is shown as restricted unless the document is off", () => {
  const shown = statusDisplay(view({ trusted: false, adapter: { ...ADAPTER, generation: 0 } }));
  assert.equal(shown.text, "C2L restricted");
  assert.match(shown.sentence, /not trusted: its files are not indexed/);
  assert.equal(text({ trusted: false, documentReason: Reason.BUFFER }), "C2L off here");
});

test("indexing shows a spinner and the count", () => {
  const status = { ...STATUS, state: State.INDEXING, busy: true, message: "index: 120 of 400 files" };
  const shown = statusDisplay(view({ status }));
  assert.deepEqual([shown.icon, shown.text, shown.busy], ["loading~spin", "C2L 120 of 400 files", true]);
});

test("off, snoozed, off here and manual have different texts and sentences", () => {
  const off = { ...STATUS, state: State.DISABLED, message: "Off.", disabledReason: Reason.OFF };
  assert.equal(text({ status: off }), "C2L off");
  assert.equal(text({ status: { ...off, disabledReason: Reason.SNOOZED } }), "C2L snoozed");
  assert.equal(text({ documentReason: Reason.BUFFER }), "C2L off here");
  assert.equal(text({ documentReason: Reason.MANUAL }), "C2L manual");
  assert.match(statusDisplay(view({ documentReason: Reason.LANGUAGE })).sentence, /this language/);
});

test("a reason of one cursor position does not change the item", () => {
  assert.equal(text({ documentReason: Reason.LINE_SUFFIX }), "C2L g3");
});

test("failures are shown as errors or warnings", () => {
  assert.equal(statusDisplay(view({ status: { ...STATUS, state: State.FAILED, message: "No." } })).severity, "error");
  assert.equal(statusDisplay(view({ status: { ...STATUS, state: State.DEGRADED } })).severity, "warning");
  assert.equal(statusDisplay(view({ processState: "missing", processMessage: "Nowhere." })).severity, "warning");
  assert.equal(statusDisplay(view({ processState: "crashed", processMessage: "Ended." })).severity, "error");
});

test("the label for screen readers is the sentence without icons", () => {
  assert.equal(accessibleLabel(statusDisplay(view())), "C2L completions: g3. Ready.");
});

test("the tooltip lists model, adapter and latency", () => {
  const facts = Object.fromEntries(statusDisplay(view()).facts);
  assert.equal(facts["Model"], "c2l-nano on cpu");
  assert.equal(facts["Adapter"], "generation 3 (memory)");
  assert.equal(facts["Latency"], "median 12 ms, 95th percentile 40 ms");
});

test("the menu lists the entries that apply to the state", () => {
  const here = { uri: "file:///a.py", language: "python", languageOn: true };
  const labels = (change: Partial<View>): string[] => menuEntries(view(change), here).map((entry) => entry.label);
  assert.ok(labels({}).includes("Turn off for python"));
  assert.ok(labels({ adapter: { ...ADAPTER, enabled: false } }).includes("Turn the adapter on"));
  assert.ok(labels({}).includes("Fine-tune on the folder"));
  assert.ok(labels({ adapter: { ...ADAPTER, deep: "training, 3 of 9 steps" } }).includes("Stop fine-tuning"));
  const off = { ...STATUS, state: State.DISABLED, disabledReason: Reason.OFF };
  assert.ok(labels({ status: off }).includes("Turn completions on"));
  assert.ok(!labels({ status: off }).includes("Turn off for python"));
  assert.deepEqual(labels({ processState: "missing" })[0], "Set up the Python environment…");
  assert.deepEqual(labels({ processState: "missing", invalidSetting: "c2l.server.path" })[0], "Change c2l.server.path");
  assert.equal(text({ processState: "missing", invalidSetting: "c2l.server.path" }), "C2L settings");
  assert.deepEqual(labels({ processState: "crashed" }), ["Restart the server", "Show the log"]);
});

test("the status page explains the reason, including VS Code's own setting", () => {
  const status = { ...STATUS, disabledReason: Reason.LANGUAGE, folders: [ADAPTER] };
  const text = statusPage(view(), status, { document: "a|b.py", inlineSuggestEnabled: false });
  assert.match(text, /off for this language/);
  assert.match(text, /editor\.inlineSuggest\.enabled/);
  assert.match(text, /\| \/f \| 3 \| 9 \|/);
});

test("the status page explains why the last request returned no completion", () => {
  const context = { document: "a.py", inlineSuggestEnabled: true };
  const text = (change: Partial<Status>): string => statusPage(view(), { ...STATUS, ...change }, context);
  assert.match(text({ lastReason: Reason.EMPTY }), /Completions are on.\n\nThe last request returned no completion: The model/);
  assert.doesNotMatch(text({}), /last request/);
  assert.equal(text({ lastReason: Reason.LEFT_OUT, disabledReason: Reason.LEFT_OUT }).match(/is excluded/g)?.length, 1);
});

test("an excluded file is off, and a window without folder or file is inactive", () => {
  assert.equal(text({ documentReason: Reason.LEFT_OUT }), "C2L off here");
  assert.deepEqual([statusDisplay(view({ processState: "idle" })).severity, text({ processState: "idle" })], ["inactive", "C2L"]);
});

test("a server message is escaped within its table cell", () => {
  const folders = [{ ...ADAPTER, message: "a | b\n# c" }];
  assert.match(statusPage(view(), { ...STATUS, folders }, { document: undefined, inlineSuggestEnabled: true }), /a \\\| b # c/);
});

test("listeners are called after every change until disposed", () => {
  const store = new Store();
  let calls = 0;
  const listening = store.listen(() => (calls += 1));
  store.update({ processState: "starting" });
  listening.dispose();
  store.update({ processState: "running" });
  assert.equal(calls, 1);
});
