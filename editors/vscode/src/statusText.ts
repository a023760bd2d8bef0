/** The status in words: one short text, a tooltip, a severity. Knows no `vscode`; icons are names of codicons. */

import { type AdapterStatus, Reason, State, type Status } from "./protocol";
import { sentenceOf } from "./reasons";
import { acceptance } from "./statistics";
import type { View } from "./view";

export type Severity = "normal" | "warning" | "error" | "inactive";

export interface Look {
  icon: string;
  text: string;
  severity: Severity;
  busy: boolean;
  /** One sentence: what is going on, or why nothing is shown. */
  sentence: string;
  /** Rows of the tooltip. */
  facts: [name: string, value: string][];
}

/** Whether a note on training says that it goes on. */
export function isTraining(deep: string): boolean {
  return /^(waiting|training|being judged)/.test(deep);
}

/** Everything a status item shows. */
export function look(view: View): Look {
  const { severity, busy, icon, text, sentence } = head(view);
  return { icon, text, severity, busy, sentence, facts: facts(view) };
}

/** For a screen reader: the text without icons, and the sentence. */
export function spoken(shown: Look): string {
  return `C2L completions: ${shown.text.replace(/^C2L ?/, "") || "status"}. ${shown.sentence}`;
}

type Head = Pick<Look, "icon" | "text" | "severity" | "busy" | "sentence">;

function head(view: View): Head {
  switch (view.life) {
    case "missing":
      return still("warning", view.lifeSetting === undefined ? "C2L set up" : "C2L settings", "warning", view.lifeMessage);
    case "crashed":
      return still("error", "C2L stopped", "error", view.lifeMessage);
    case "idle":
      return still("circle-outline", "C2L", "inactive", "The server starts with the first folder or file that it can serve.");
    case "stopped":
      return still("circle-slash", "C2L stopped", "inactive", "The server is not running.");
    case "starting":
      return busy("C2L", "The server is starting.");
    case "restarting":
      return busy("C2L restarting", view.lifeMessage || "The server ended and is being started again.");
    case "running":
      return view.status === undefined ? busy("C2L", "The server is starting.") : ofStatus(view.status, view);
  }
}

function ofStatus(status: Status, view: View): Head {
  const { state, message } = status;
  if (state === State.FAILED) return still("error", "C2L failed", "error", message);
  if (state === State.DISABLED) {
    const snoozed = status.disabledReason === Reason.SNOOZED;
    return still(snoozed ? "bell-slash" : "circle-slash", snoozed ? "C2L snoozed" : "C2L off", "inactive", message);
  }
  if (state === State.UNLOADED) return still("debug-pause", "C2L unloaded", "inactive", message);
  if (status.busy) return busy(`C2L ${count(message)}`.trimEnd(), message);
  const reason = blocking(view.documentReason);
  if (reason !== undefined) return still("circle-slash", `C2L ${short(reason)}`, "inactive", sentenceOf(reason));
  const text = `C2L ${adapterText(view.adapter)}`.trimEnd();
  if (state === State.DEGRADED) return still("warning", text, "warning", message);
  if (!view.trusted) return still("shield", "C2L restricted", "normal", RESTRICTED);
  return still("sparkle", text, "normal", message);
}

const RESTRICTED = "This workspace is not trusted: nothing is learned from it, the bare model answers.";
const WHOLE_DOCUMENT: readonly string[] = [
  Reason.LANGUAGE, Reason.BUFFER, Reason.MANUAL, Reason.SNOOZED, Reason.LEFT_OUT,
];

/** Reasons that hold for the whole document; those of one place come and go with the cursor. */
function blocking(reason: string | undefined): string | undefined {
  return reason !== undefined && WHOLE_DOCUMENT.includes(reason) ? reason : undefined;
}

function short(reason: string): string {
  return reason === Reason.MANUAL ? "manual" : reason === Reason.SNOOZED ? "snoozed" : "off here";
}

/** "g3 +2": the third generation, two changed files waiting. */
function adapterText(adapter: AdapterStatus | undefined): string {
  if (adapter === undefined) return "";
  if (!adapter.enabled || (adapter.generation > 0 && adapter.scale === 0)) return "bare";
  const waiting = adapter.pendingFiles > 0 ? ` +${adapter.pendingFiles}` : "";
  return adapter.generation > 0 ? `g${adapter.generation}${waiting}` : waiting.trim();
}

/** The count in a message such as "index: 120 of 400 files". */
function count(message: string): string {
  return /\d+ of \d+(?: \w+)?/.exec(message)?.[0] ?? "";
}

function facts(view: View): [string, string][] {
  const rows: [string, string][] = [];
  const { status, statistics, adapter } = view;
  const add = (name: string, value: string | null | undefined): void => {
    if (value !== undefined && value !== null && value !== "") rows.push([name, value]);
  };
  add("Model", modelText(status));
  if (adapter !== undefined) {
    add("Adapter", adapterFact(adapter));
    add("Learned from", adapter.files > 0 ? `${adapter.files} files` : "");
    add("Waiting", adapter.pendingFiles > 0 ? `${adapter.pendingFiles} changed files` : "");
    add("Training", adapter.deep);
    add("Note", adapter.message);
  }
  const latency = statistics?.latencyMs ?? status?.latencyMs;
  if (latency && latency.p50 > 0) add("Latency", `${ms(latency.p50)} median, ${ms(latency.p95)} p95`);
  if (statistics?.enabled) add("Accepted", acceptance(statistics));
  add("Server", view.serverVersion);
  if (!view.trusted) add("Trust", "restricted: this workspace is not learned and cannot choose the server");
  return rows;
}

/** The model and where it runs. */
export function modelText(status: Status | undefined): string | undefined {
  if (!status?.model) return undefined;
  return status.device === "" ? status.model : `${status.model} on ${status.device}`;
}

function adapterFact({ enabled, generation, kind, scale }: AdapterStatus): string {
  if (!enabled) return "off, the bare model answers";
  if (generation > 0 && scale === 0) return `generation ${generation}, without effect: it did not help here`;
  return generation > 0 ? `generation ${generation}${kind ? ` (${kind})` : ""}` : "none yet";
}

function ms(value: number): string {
  return `${Math.round(value)} ms`;
}

function still(icon: string, text: string, severity: Severity, sentence: string): Head {
  return { icon, text, severity, busy: false, sentence };
}

function busy(text: string, sentence: string): Head {
  return { icon: "loading~spin", text, severity: "normal", busy: true, sentence };
}
