/** The content of the panel "Adapter Report" as plain strings and numbers. Uses neither `vscode` nor the DOM. */

import type { Generation } from "./history";
import { type AdapterInfo, type Counts, type StatisticsReport, type Status } from "./protocol";
import { sentenceOf } from "./reasons";
import { isTraining, modelText } from "./statusText";
import { milliseconds, percent, rate, rejected, thisWeek, weekLine } from "./statistics";

export interface PanelInput {
  folders: readonly { path: string; name: string }[];
  folder: string;
  status: Status | undefined;
  info: AdapterInfo | undefined;
  statistics: StatisticsReport | undefined;
  generations: readonly Generation[];
  /** Size of the folder's state directory in MB, once measured. */
  diskMb: number | undefined;
  now: Date;
  /** Why there are no data; else empty. */
  error: string;
}

export type Row = string[];

export interface PanelData {
  folders: { path: string; name: string }[];
  folder: string;
  sentence: string;
  busy: boolean;
  facts: [name: string, value: string][];
  /** Norm by generation, for the chart. */
  points: { generation: number; norm: number }[];
  generations: Row[];
  comparison: Row[];
  resources: [name: string, value: string][];
  reasons: Row[];
  week: string;
  adapterOn: boolean;
  training: boolean;
  hasAdapter: boolean;
}

export const GENERATION_HEAD = ["Generation", "Published", "Cause", "Changed files", "Files", "Duration", "Norm", "Change"];
export const COMPARISON_HEAD = ["", "With adapter", "Without adapter"];
export const REASON_HEAD = ["Reason", "Requests"];

/** How many files of a generation are named in its row. */
const MAX_PATHS = 3;
const MAX_REASONS = 8;
const TRIGGERS: Record<string, string> = {
  index: "first index",
  diff: "changed files",
  settings: "changed settings",
  reset: "reset",
  restore: "restored from disk",
  regenerate: "rebuilt",
  deep: "fine-tuning",
  gate: "validated again",
};

export function panelData(input: PanelInput): PanelData {
  const { status, info, statistics, now } = input;
  const rows = input.generations;
  return {
    folders: input.folders.map((folder) => ({ ...folder })),
    folder: input.folder,
    sentence: input.error || (status?.message ?? ""),
    busy: status?.busy ?? false,
    facts: facts(status, info, now),
    points: rows.flatMap((row) => (row.norm === undefined ? [] : [{ generation: row.generation, norm: row.norm }])),
    generations: rows.map((row) => generationRow(row, now)).reverse(),
    comparison: statistics === undefined ? [] : comparison(statistics),
    resources: resources(status, input.diskMb),
    reasons: reasons(statistics),
    week: statistics === undefined ? "" : weekLine(thisWeek(statistics, now)),
    adapterOn: info?.enabled ?? false,
    training: isTraining(info?.deep ?? ""),
    hasAdapter: (info?.generation ?? 0) > 0,
  };
}

function facts(status: Status | undefined, info: AdapterInfo | undefined, now: Date): [string, string][] {
  const rows: [string, string][] = [["Model", modelText(status) ?? "not loaded"]];
  if (info === undefined) return rows;
  rows.push(["Adapter", info.generation > 0 ? `generation ${info.generation}` : "none yet"]);
  if (!info.enabled) rows.push(["In use", "no, the base model is in use"]);
  rows.push(["Hypernetwork", info.kind || "–"]);
  rows.push(["Indexed files", count(info.files)]);
  if (info.recalled > 0) rows.push(["Index", `${count(info.recalled)} tokens, ${count(info.keyed)} with neural keys`]);
  rows.push(["Waiting files", count(info.pendingFiles)]);
  if (info.updatedAt > 0) rows.push(["Last update", ago(info.updatedAt * 1000, now)]);
  rows.push(["Strength", number(info.scale)]);
  rows.push(["Norm", number(info.norm)]);
  if (info.rank > 0) rows.push(["Rank", count(info.rank)]);
  if (info.deep !== "") rows.push(["Fine-tuning", info.deep]);
  if (info.message !== "") rows.push(["Note", info.message]);
  return rows;
}

function generationRow(row: Generation, now: Date): Row {
  return [
    String(row.generation),
    ago(row.at, now),
    TRIGGERS[row.trigger] ?? row.trigger,
    changedFiles(row),
    count(row.files),
    row.ms > 0 ? duration(row.ms) : "–",
    row.norm === undefined ? "–" : number(row.norm),
    row.moved === undefined || row.moved === 0 ? "–" : `${(100 * row.moved).toFixed(1)} %`,
  ];
}

/** "a.py, b.py and 3 more", the largest files first. */
function changedFiles({ paths = [], changedFiles }: Generation): string {
  if (paths.length === 0) return changedFiles === 1 ? "1 file" : `${count(changedFiles)} files`;
  const named = paths.slice(0, MAX_PATHS).join(", ");
  const more = changedFiles - Math.min(paths.length, MAX_PATHS);
  return more > 0 ? `${named} and ${count(more)} more` : named;
}

function duration(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function comparison(report: StatisticsReport): Row[] {
  const row = (name: string, value: (counts: Counts) => string): Row => [
    name,
    value(report.withAdapter),
    value(report.withoutAdapter),
  ];
  const latency = (name: string, percentile: "p50" | "p95"): Row => [
    name,
    milliseconds(report.latencyMsWithAdapter, percentile),
    milliseconds(report.latencyMsWithoutAdapter, percentile),
  ];
  return [
    row("Shown", (counts) => count(counts.shown)),
    row("Accepted", (counts) => count(counts.accepted)),
    row("Partly accepted", (counts) => count(counts.partlyAccepted)),
    row("Rejected", (counts) => count(rejected(counts))),
    row("Acceptance rate", (counts) => percent(rate(counts))),
    row("Accepted characters", (counts) => count(counts.acceptedChars)),
    latency("Latency, median", "p50"),
    latency("Latency, 95th percentile", "p95"),
  ];
}

/** Unknown values are left out. */
function resources(status: Status | undefined, diskMb: number | undefined): [string, string][] {
  const rows: [string, string][] = [];
  const memory = status?.memoryMb ?? 0;
  if (memory > 0) rows.push(["Memory of the engine", `${count(Math.round(memory))} MB`]);
  if (diskMb !== undefined) rows.push(["State on disk", `${diskMb.toFixed(1)} MB`]);
  return rows;
}

function reasons(report: StatisticsReport | undefined): Row[] {
  const counted = Object.entries(report?.reasons ?? {}).sort((a, b) => b[1] - a[1]);
  return counted.slice(0, MAX_REASONS).map(([reason, times]) => [sentenceOf(reason), count(times)]);
}

/** An integer with separators: 5,296. */
function count(value: number): string {
  return value.toLocaleString("en-US");
}

function number(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}

/** "just now", "5 minutes ago", a time of today, or date and time. */
export function ago(at: number, now: Date): string {
  const minutes = Math.floor((now.getTime() - at) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return minutes === 1 ? "1 minute ago" : `${minutes} minutes ago`;
  const then = new Date(at);
  const clock = `${String(then.getHours()).padStart(2, "0")}:${String(then.getMinutes()).padStart(2, "0")}`;
  if (then.toDateString() === now.toDateString()) return clock;
  return `${then.getFullYear()}-${String(then.getMonth() + 1).padStart(2, "0")}-${String(then.getDate()).padStart(2, "0")} ${clock}`;
}
