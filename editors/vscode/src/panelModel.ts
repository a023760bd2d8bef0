/** Everything the panel "What has it learned" shows, as plain strings and numbers. Knows neither `vscode` nor the DOM. */

import type { Generation } from "./history";
import { type AdapterInfo, type Counts, type StatisticsReport, type Status } from "./protocol";
import { sentenceOf } from "./reasons";
import { isTraining, modelText } from "./statusText";
import { milliseconds, percent, rate, rejected, thisWeek, weekLine } from "./statistics";

export interface Known {
  folders: readonly { path: string; name: string }[];
  folder: string;
  status: Status | undefined;
  info: AdapterInfo | undefined;
  statistics: StatisticsReport | undefined;
  generations: readonly Generation[];
  /** Size of the folder's state on disk in MB, once known. */
  diskMb: number | undefined;
  now: Date;
  /** Why there is nothing to show at all. */
  trouble: string;
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
  compare: Row[];
  resources: [name: string, value: string][];
  reasons: Row[];
  week: string;
  adapterOn: boolean;
  training: boolean;
  hasAdapter: boolean;
}

export const GENERATION_HEAD = ["Generation", "When", "Because of", "What was read", "Files in all", "Took", "Norm", "Moved"];
export const COMPARE_HEAD = ["", "With the adapter", "Without"];

/** Files of a generation that are named in its row. */
const NAMED = 3;
const TRIGGERS: Record<string, string> = {
  index: "first reading",
  diff: "edited files",
  settings: "changed settings",
  reset: "forgotten on request",
  restore: "restored from disk",
  regenerate: "read again on request",
  deep: "training on request",
  gate: "tested again",
};

export function panelData(known: Known): PanelData {
  const { status, info } = known;
  const rows = known.generations;
  return {
    folders: known.folders.map((folder) => ({ ...folder })),
    folder: known.folder,
    sentence: known.trouble || (status?.message ?? ""),
    busy: status?.busy ?? false,
    facts: facts(status, info, known.now),
    points: rows.flatMap((row) => (row.norm === undefined ? [] : [{ generation: row.generation, norm: row.norm }])),
    generations: rows.map((row) => generationRow(row, known.now)).reverse(),
    compare: known.statistics === undefined ? [] : compare(known.statistics),
    resources: resources(status, known.diskMb),
    reasons: reasons(known.statistics),
    week: known.statistics === undefined ? "" : weekLine(thisWeek(known.statistics, known.now)),
    adapterOn: info?.enabled ?? false,
    training: isTraining(info?.deep ?? ""),
    hasAdapter: (info?.generation ?? 0) > 0,
  };
}

function facts(status: Status | undefined, info: AdapterInfo | undefined, now: Date): [string, string][] {
  const rows: [string, string][] = [["Model", modelText(status) ?? "not loaded"]];
  if (info === undefined) return rows;
  rows.push(["Adapter", info.generation > 0 ? `generation ${info.generation}` : "none yet"]);
  if (!info.enabled) rows.push(["Switched", "off – the bare model answers"]);
  rows.push(["Made by", info.kind || "–"]);
  rows.push(["Files read", String(info.files)]);
  rows.push(["Waiting to be learned", info.pendingFiles === 1 ? "1 file" : `${info.pendingFiles} files`]);
  rows.push(["Norm", number(info.norm)]);
  rows.push(["Strength", number(info.scale)]);
  if (info.rank > 0) rows.push(["Rank", String(info.rank)]);
  if (info.recalled > 0) rows.push(["Recalls", `${info.recalled} tokens in their places`]);
  if (info.updatedAt > 0) rows.push(["Last learned", ago(info.updatedAt * 1000, now)]);
  if (info.deep !== "") rows.push(["Training on request", info.deep]);
  if (info.message !== "") rows.push(["Note", info.message]);
  return rows;
}

function generationRow(row: Generation, now: Date): Row {
  return [
    String(row.generation),
    ago(row.at, now),
    TRIGGERS[row.trigger] ?? row.trigger,
    reading(row),
    String(row.files),
    row.ms > 0 ? took(row.ms) : "–",
    row.norm === undefined ? "–" : number(row.norm),
    row.moved === undefined || row.moved === 0 ? "–" : `${(100 * row.moved).toFixed(1)} %`,
  ];
}

/** "a.py, b.py and 3 more": the largest first. */
function reading({ paths = [], changedFiles }: Generation): string {
  if (paths.length === 0) return changedFiles === 1 ? "1 file" : `${changedFiles} files`;
  const named = paths.slice(0, NAMED).join(", ");
  const more = changedFiles - Math.min(paths.length, NAMED);
  return more > 0 ? `${named} and ${more} more` : named;
}

function took(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function compare(report: StatisticsReport): Row[] {
  const row = (name: string, value: (counts: Counts) => string | number): Row => [
    name,
    String(value(report.withAdapter)),
    String(value(report.withoutAdapter)),
  ];
  const time = (share: "p50" | "p95"): Row => [
    share === "p50" ? "Latency, median" : "Latency, p95",
    milliseconds(report.latencyMsWithAdapter, share),
    milliseconds(report.latencyMsWithoutAdapter, share),
  ];
  return [
    row("Shown", (counts) => counts.shown),
    row("Accepted", (counts) => counts.accepted),
    row("Accepted in part", (counts) => counts.partlyAccepted),
    row("Rejected", rejected),
    row("Acceptance", (counts) => percent(rate(counts))),
    row("Characters accepted", (counts) => counts.acceptedChars),
    time("p50"),
    time("p95"),
  ];
}

/** What is not told is left out, not guessed. */
function resources(status: Status | undefined, diskMb: number | undefined): [string, string][] {
  const rows: [string, string][] = [];
  const memory = status?.memoryMb ?? 0;
  if (memory > 0) rows.push(["Memory of the engine", `${Math.round(memory)} MB`]);
  if (diskMb !== undefined) rows.push(["What was learned, on disk", `${diskMb.toFixed(1)} MB`]);
  return rows;
}

function reasons(report: StatisticsReport | undefined): Row[] {
  const counted = Object.entries(report?.reasons ?? {}).sort((a, b) => b[1] - a[1]);
  return counted.slice(0, 8).map(([reason, times]) => [sentenceOf(reason), String(times)]);
}

function number(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}

/** "just now", "5 minutes ago", or the day. */
export function ago(at: number, now: Date): string {
  const minutes = Math.floor((now.getTime() - at) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return minutes === 1 ? "1 minute ago" : `${minutes} minutes ago`;
  const day = new Date(at);
  const clock = `${String(day.getHours()).padStart(2, "0")}:${String(day.getMinutes()).padStart(2, "0")}`;
  if (day.toDateString() === now.toDateString()) return clock;
  return `${day.getFullYear()}-${String(day.getMonth() + 1).padStart(2, "0")}-${String(day.getDate()).padStart(2, "0")} ${clock}`;
}
