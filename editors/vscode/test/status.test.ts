import assert from "node:assert/strict";
import { test } from "node:test";
import { type AdapterStatus, Reason, State, type Status } from "../src/protocol";
import { look, spoken } from "../src/statusText";
import { entries } from "../src/menu";
import { statusPage } from "../src/statusPage";
import { Store, type View } from "../src/view";

const ADAPTER: AdapterStatus = {
  folder: "/f", generation: 3, pendingFiles: 0, updatedAt: 1, enabled: true, kind: "memory", state: "ready", files: 9, scale: 1, message: "", deep: "",
};
const STATUS: Status = {
  kind: "Normal", busy: false, message: "Ready.", state: State.READY, model: "c2l-nano", device: "cpu", adapter: ADAPTER, latencyMs: { p50: 12.3, p95: 40 },
};

function view(change: Partial<View> = {}): View {
  return { ...new Store().view, life: "running", status: STATUS, adapter: ADAPTER, language: "python", ...change };
}

function text(change: Partial<View>): string {
  return look(view(change)).text;
}

test("ready shows the generation, waiting files and the bare model", () => {
  assert.equal(text({}), "C2L g3");
  assert.equal(text({ adapter: { ...ADAPTER, pendingFiles: 2 } }), "C2L g3 +2");
  assert.equal(text({ adapter: { ...ADAPTER, enabled: false } }), "C2L bare");
  assert.equal(text({ adapter: undefined }), "C2L");
});

test("an untrusted workspace is said to be one, unless something else is the matter", () => {
  const shown = look(view({ trusted: false, adapter: { ...ADAPTER, generation: 0 } }));
  assert.equal(shown.text, "C2L restricted");
  assert.match(shown.sentence, /not trusted: nothing is learned/);
  assert.equal(text({ trusted: false, documentReason: Reason.BUFFER }), "C2L off here");
});

test("indexing spins and shows the count", () => {
  const status = { ...STATUS, state: State.INDEXING, busy: true, message: "index: 120 of 400 files" };
  const shown = look(view({ status }));
  assert.deepEqual([shown.icon, shown.text, shown.busy], ["loading~spin", "C2L 120 of 400 files", true]);
});

test("off, snoozed and off here are told apart, each with its sentence", () => {
  const off = { ...STATUS, state: State.DISABLED, message: "Off.", disabledReason: Reason.OFF };
  assert.equal(text({ status: off }), "C2L off");
  assert.equal(text({ status: { ...off, disabledReason: Reason.SNOOZED } }), "C2L snoozed");
  assert.equal(text({ documentReason: Reason.BUFFER }), "C2L off here");
  assert.equal(text({ documentReason: Reason.MANUAL }), "C2L manual");
  assert.match(look(view({ documentReason: Reason.LANGUAGE })).sentence, /this language/);
});

test("a reason of one place in the text does not change the item", () => {
  assert.equal(text({ documentReason: Reason.LINE_SUFFIX }), "C2L g3");
});

test("troubles have their colours", () => {
  assert.equal(look(view({ status: { ...STATUS, state: State.FAILED, message: "No." } })).severity, "error");
  assert.equal(look(view({ status: { ...STATUS, state: State.DEGRADED } })).severity, "warning");
  assert.equal(look(view({ life: "missing", lifeMessage: "Nowhere." })).severity, "warning");
  assert.equal(look(view({ life: "crashed", lifeMessage: "Ended." })).severity, "error");
});

test("a screen reader hears the sentence, not icons", () => {
  assert.equal(spoken(look(view())), "C2L completions: g3. Ready.");
});

test("the tooltip names model, adapter and latency", () => {
  const facts = Object.fromEntries(look(view()).facts);
  assert.equal(facts["Model"], "c2l-nano on cpu");
  assert.equal(facts["Adapter"], "generation 3 (memory)");
  assert.equal(facts["Latency"], "12 ms median, 40 ms p95");
});

test("the menu offers what makes sense now", () => {
  const here = { uri: "file:///a.py", language: "python", languageOn: true };
  const labels = (change: Partial<View>): string[] => entries(view(change), here).map((entry) => entry.label);
  assert.ok(labels({}).includes("Turn off for python"));
  assert.ok(labels({ adapter: { ...ADAPTER, enabled: false } }).includes("Compare: answer with the adapter"));
  assert.ok(labels({}).includes("Train on the folder"));
  assert.ok(labels({ adapter: { ...ADAPTER, deep: "training, 3 of 9 steps" } }).includes("Stop training on the folder"));
  const off = { ...STATUS, state: State.DISABLED, disabledReason: Reason.OFF };
  assert.ok(labels({ status: off }).includes("Turn completions on"));
  assert.ok(!labels({ status: off }).includes("Turn off for python"));
  assert.deepEqual(labels({ life: "missing" })[0], "Set up the Python environment…");
  assert.deepEqual(labels({ life: "missing", lifeSetting: "c2l.server.path" })[0], "Change c2l.server.path");
  assert.equal(text({ life: "missing", lifeSetting: "c2l.server.path" }), "C2L settings");
  assert.deepEqual(labels({ life: "crashed" }), ["Restart the server", "Show the log"]);
});

test("the status page says why, and that the editor itself may be the reason", () => {
  const status = { ...STATUS, disabledReason: Reason.LANGUAGE, folders: [ADAPTER] };
  const text = statusPage(view(), status, { document: "a|b.py", inlineSuggestEnabled: false });
  assert.match(text, /off for this language/);
  assert.match(text, /editor\.inlineSuggest\.enabled/);
  assert.match(text, /\| \/f \| 3 \| 9 \|/);
});

test("the status page says why the last request was in vain", () => {
  const place = { document: "a.py", inlineSuggestEnabled: true };
  const told = (change: Partial<Status>): string => statusPage(view(), { ...STATUS, ...change }, place);
  assert.match(told({ lastReason: Reason.EMPTY }), /Completions are on.\n\nThe last request got nothing: The model had/);
  assert.doesNotMatch(told({}), /last request/);
  assert.equal(told({ lastReason: Reason.LEFT_OUT, disabledReason: Reason.LEFT_OUT }).match(/left out/g)?.length, 1);
});

test("a file that is left out is off, and a window without anything to serve is idle", () => {
  assert.equal(text({ documentReason: Reason.LEFT_OUT }), "C2L off here");
  assert.deepEqual([look(view({ life: "idle" })).severity, text({ life: "idle" })], ["inactive", "C2L"]);
});

test("a message of others stays inside its table cell", () => {
  const folders = [{ ...ADAPTER, message: "a | b\n# c" }];
  assert.match(statusPage(view(), { ...STATUS, folders }, { document: undefined, inlineSuggestEnabled: true }), /a \\\| b # c/);
});

test("listeners hear every change until they end", () => {
  const store = new Store();
  let heard = 0;
  const listening = store.listen(() => (heard += 1));
  store.update({ life: "starting" });
  listening.dispose();
  store.update({ life: "running" });
  assert.equal(heard, 1);
});
