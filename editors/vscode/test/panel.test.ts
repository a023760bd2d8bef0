import assert from "node:assert/strict";
import { test } from "node:test";
import { Generations } from "../src/history";
import { ago, type PanelInput, panelData } from "../src/panelModel";
import type { AdapterChange, AdapterInfo, Counts, StatisticsReport } from "../src/protocol";
import { acceptance, statisticsPage, thisWeek, weekLine, weekOf } from "../src/statistics";
import { memento } from "./memento";

const ADAPTER = {
  folder: "/f", generation: 1, pendingFiles: 0, updatedAt: 1, enabled: true, kind: "memory", state: "ready", files: 9, scale: 1, message: "", deep: "",
};
const NOW = new Date(2026, 10, 22, 12, 0);

function change(generation: number, trigger = "diff"): AdapterChange {
  return { folder: "/f", generation, trigger, changedFiles: 2, ms: { embed: 3, update: 4 }, adapter: { ...ADAPTER, generation }, paths: ["a.py", "b.py"], moved: 0.25 };
}

function info(generation: number, norm: number): AdapterInfo {
  return { ...ADAPTER, generation, norm, rank: 8, recalled: 1200, keyed: 300 };
}

function counts(shown: number, accepted: number, acceptedChars = 0): Counts {
  return { shown, accepted, partlyAccepted: 0, acceptedChars, shownChars: 0 };
}

function report(withAdapter: Counts, withoutAdapter: Counts): StatisticsReport {
  return {
    enabled: true, latencyMs: { p50: 10, p95: 20, count: 4 },
    latencyMsWithAdapter: { p50: 12, p95: 20, count: 4 }, latencyMsWithoutAdapter: { p50: 0, p95: 0, count: 0 }, withAdapter, withoutAdapter, requests: 9, fromCache: 1,
    typedThrough: 2, superseded: 3, reasons: { "line-suffix": 2, manual: 5 }, weeks: {},
  };
}

function input(change: Partial<PanelInput>): PanelInput {
  return {
    folders: [{ path: "/f", name: "f" }], folder: "/f", status: undefined, info: undefined, statistics: undefined,
    generations: [], diskMb: undefined, now: NOW, error: "", ...change,
  };
}

test("generations are persisted, and a restored one adds no row", () => {
  const keep = memento();
  const first = new Generations(keep, () => 100);
  first.record(change(1, "index"));
  first.record(change(2));
  first.measured(info(2, 0.5));
  const second = new Generations(keep, () => 900);
  second.record(change(2, "restore"));
  assert.deepEqual(second.of("/f").map((row) => [row.generation, row.trigger, row.at, row.norm]), [
    [1, "index", 100, undefined],
    [2, "diff", 100, 0.5],
  ]);
  const last = second.of("/f").at(-1)?.generation ?? 0;
  second.record(change(last + 1, "reset")); // recorded before the reset request is answered
  second.deleteUpTo("/f", last);
  assert.deepEqual(second.of("/f").map((row) => row.generation), [last + 1]);
  second.deleteUpTo("/f", last + 1);
  assert.equal(new Generations(keep).of("/f").length, 0);
});

test("a row names the largest changed files, and rows of older versions are shown", () => {
  const row = { at: 0, generation: 1, trigger: "diff", changedFiles: 9, files: 9, ms: 1 };
  const read = (change: object): string | undefined => panelData(input({ generations: [{ ...row, ...change }] })).generations[0]?.[3];
  assert.equal(read({ paths: ["a.py", "b.py", "c.py", "d.py"] }), "a.py, b.py, c.py and 6 more");
  assert.deepEqual([read({}), read({ changedFiles: 1 })], ["9 files", "1 file"]);
  assert.deepEqual(panelData(input({ generations: [row] })).generations[0]?.at(-1), "–");
});

test("the panel lists the newest generation first, with its cause", () => {
  const generations = new Generations(memento(), () => NOW.getTime());
  generations.record(change(1, "index"));
  generations.record(change(2));
  generations.measured(info(1, 1));
  generations.measured(info(2, 1.5));
  const data = panelData(input({ generations: generations.of("/f"), info: info(2, 1.5), diskMb: 1.25 }));
  assert.deepEqual(data.generations[0], ["2", "just now", "changed files", "a.py, b.py", "9", "7 ms", "1.50", "25.0 %"]);
  assert.deepEqual(data.points, [{ generation: 1, norm: 1 }, { generation: 2, norm: 1.5 }]);
  assert.deepEqual(data.resources, [["State on disk", "1.3 MB"]]);
  assert.equal(data.hasAdapter, true);
});

test("the comparison lists values with and without adapter side by side", () => {
  const data = panelData(input({ statistics: report(counts(10, 4), counts(5, 1)) }));
  assert.deepEqual(data.comparison.find((row) => row[0] === "Acceptance rate"), ["Acceptance rate", "40 %", "20 %"]);
  assert.deepEqual(data.comparison.find((row) => row[0]?.endsWith("median"))?.slice(1), ["12 ms", "–"]);
  assert.deepEqual(data.comparison.find((row) => row[0] === "Rejected"), ["Rejected", "6", "4"]);
  assert.deepEqual(data.reasons[0]?.[1], "5");
});

test("without a server the panel shows the error", () => {
  assert.equal(panelData(input({ error: "The server is not running." })).sentence, "The server is not running.");
});

test("times are relative within the hour, else absolute", () => {
  assert.equal(ago(NOW.getTime() - 60_000, NOW), "1 minute ago");
  assert.equal(ago(NOW.getTime() - 7_200_000, NOW), "10:00");
  assert.equal(ago(new Date(2026, 0, 2, 3, 4).getTime(), NOW), "2026-01-02 03:04");
});

test("weekOf returns the ISO week", () => {
  assert.equal(weekOf(new Date(2026, 10, 22)), "2026-W47");
  assert.equal(weekOf(new Date(2027, 0, 1)), "2026-W53");
  assert.equal(weekOf(new Date(2027, 0, 4)), "2027-W01");
});

test("weekLine shows the server's count of the current week", () => {
  const counted = { ...report(counts(1, 1), counts(1, 1)), weeks: { "2026-W47": { withAdapter: 60, withoutAdapter: 5 } } };
  assert.equal(weekLine(thisWeek(counted, NOW)), "Keystrokes saved this week: 65 (60 with adapter, 5 without).");
  assert.equal(weekLine(thisWeek(counted, new Date(2026, 10, 23))), "Keystrokes saved this week: none yet.");
});

test("the statistics page has totals and reasons", () => {
  const text = statisticsPage(report(counts(10, 4, 40), counts(5, 1, 6)), thisWeek(report(counts(0, 0), counts(0, 0)), NOW));
  assert.match(text, /\| Acceptance rate \| 40 % \| 20 % \| 33 % \|/);
  assert.match(text, /\| Too much text follows[^|]*\| 2 \|/);
  assert.equal(acceptance(report(counts(0, 0), counts(0, 0))), "");
});
