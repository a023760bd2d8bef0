/** Text, icon, severity and tooltip rows of the status items. Does not use `vscode`; icons are names of codicons. */

import { type AdapterStatus, Reason, State, type Status } from "./protocol";
import { sentenceOf } from "./reasons";
import { acceptance } from "./statistics";
import type { View } from "./view";

export type Severity = "normal" | "warning" | "error" | "inactive";

export interface StatusDisplay {
  icon: string;
  text: string;
  severity: Severity;
  busy: boolean;
  /** One sentence on the state, or on why nothing is shown. */
  sentence: string;
  /** Rows of the tooltip. */
  facts: [name: string, value: string][];
}

/** Returns whether the server's note on fine-tuning describes one that is running. */
export function isTraining(deep: string): boolean {
  return /^(waiting|training|validating)/.test(deep);
}

/** Returns everything that a status item shows. */
export function statusDisplay(view: View): StatusDisplay {
  const { severity, busy, icon, text, sentence } = headline(view);
  return { icon, text, severity, busy, sentence, facts: facts(view) };
}

/** Returns the label for screen readers: the text without icon, and the sentence. */
export function accessibleLabel(display: StatusDisplay): string {
  return `C2L completions: ${display.text.replace(/^C2L ?/, "") || "status"}. ${display.sentence}`;
}

type Headline = Pick<StatusDisplay, "icon" | "text" | "severity" | "busy" | "sentence">;

function headline(view: View): Headline {
  switch (view.processState) {
    case "missing":
      return notBusy("warning", view.invalidSetting === undefined ? "C2L set up" : "C2L settings", "warning", view.processMessage);
    case "crashed":
      return notBusy("error", "C2L stopped", "error", view.processMessage);
    case "idle":
      return notBusy("circle-outline", "C2L", "inactive", "The server starts when a folder or a supported file is opened.");
    case "stopped":
      return notBusy("circle-slash", "C2L stopped", "inactive", "The server is not running.");
    case "starting":
      return busy("C2L", "The server is starting.");
    case "restarting":
      return busy("C2L restarting", view.processMessage || "The server exited and is being restarted.");
    case "running":
      return view.status === undefined ? busy("C2L", "The server is starting.") : ofStatus(view.status, view);
  }
}

function ofStatus(status: Status, view: View): Headline {
  const { state, message } = status;
  if (state === State.FAILED) return notBusy("error", "C2L failed", "error", message);
  if (state === State.DISABLED) {
    const snoozed = status.disabledReason === Reason.SNOOZED;
    return notBusy(snoozed ? "bell-slash" : "circle-slash", snoozed ? "C2L snoozed" : "C2L off", "inactive", message);
  }
  if (state === State.UNLOADED) return notBusy("debug-pause", "C2L unloaded", "inactive", message);
  if (status.busy) return busy(`C2L ${count(message)}`.trimEnd(), message);
  const reason = blocking(view.documentReason);
  if (reason !== undefined) return notBusy("circle-slash", `C2L ${short(reason)}`, "inactive", sentenceOf(reason));
  const text = `C2L ${adapterText(view.adapter)}`.trimEnd();
  if (state === State.DEGRADED) return notBusy("warning", text, "warning", message);
  if (!view.trusted) return notBusy("shield", "C2L restricted", "normal", RESTRICTED);
  return notBusy("sparkle", text, "normal", message);
}

const RESTRICTED = "This workspace is not trusted: its files are not indexed, and completions come from the base model.";
const WHOLE_DOCUMENT: readonly string[] = [
  Reason.LANGUAGE, Reason.BUFFER, Reason.MANUAL, Reason.SNOOZED, Reason.LEFT_OUT,
];

/** Returns the reason if it applies to the whole document; reasons of one position change with the cursor. */
function blocking(reason: string | undefined): string | undefined {
  return reason !== undefined && WHOLE_DOCUMENT.includes(reason) ? reason : undefined;
}

function short(reason: string): string {
  return reason === Reason.MANUAL ? "manual" : reason === Reason.SNOOZED ? "snoozed" : "off here";
}

/** "g3 +2": generation 3, two changed files waiting. */
function adapterText(adapter: AdapterStatus | undefined): string {
  if (adapter === undefined) return "";
  if (!adapter.enabled || (adapter.generation > 0 && adapter.scale === 0)) return "base";
  const waiting = adapter.pendingFiles > 0 ? ` +${adapter.pendingFiles}` : "";
  return adapter.generation > 0 ? `g${adapter.generation}${waiting}` : waiting.trim();
}

/** Returns the count in a message such as "index: 120 of 400 files". */
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
    add("Indexed files", adapter.files > 0 ? String(adapter.files) : "");
    add("Waiting files", adapter.pendingFiles > 0 ? String(adapter.pendingFiles) : "");
    add("Fine-tuning", adapter.deep);
    add("Note", adapter.message);
  }
  const latency = statistics?.latencyMs ?? status?.latencyMs;
  if (latency && latency.p50 > 0) add("Latency", `median ${ms(latency.p50)}, 95th percentile ${ms(latency.p95)}`);
  if (statistics?.enabled) add("Accepted", acceptance(statistics));
  add("Server", view.serverVersion);
  if (!view.trusted) add("Workspace", "not trusted: not indexed, and cannot choose the server");
  return rows;
}

/** Returns the name of the model and its device. */
export function modelText(status: Status | undefined): string | undefined {
  if (!status?.model) return undefined;
  return status.device === "" ? status.model : `${status.model} on ${status.device}`;
}

function adapterFact({ enabled, generation, kind, scale }: AdapterStatus): string {
  if (!enabled) return "off, the base model is in use";
  if (generation > 0 && scale === 0) return `generation ${generation}, not used: it did not improve held-out files`;
  return generation > 0 ? `generation ${generation}${kind ? ` (${kind})` : ""}` : "none yet";
}

function ms(value: number): string {
  return `${Math.round(value)} ms`;
}

function notBusy(icon: string, text: string, severity: Severity, sentence: string): Headline {
  return { icon, text, severity, busy: false, sentence };
}

function busy(text: string, sentence: string): Headline {
  return { icon: "loading~spin", text, severity: "normal", busy: true, sentence };
}
