/** The page behind "Why is (nothing) shown": the state, this document, every folder. Knows no `vscode`. */

import { type AdapterStatus, type Status } from "./protocol";
import { sentenceOf } from "./reasons";
import { look } from "./statusText";
import type { View } from "./view";

export interface Place {
  /** Name of the active document, and whether the editor shows inline suggestions at all. */
  document: string | undefined;
  inlineSuggestEnabled: boolean;
}

export function statusPage(view: View, status: Status | undefined, place: Place): string {
  const shown = look(view);
  return [
    "# C2L status",
    "",
    `**${shown.text.replace(/^C2L ?/, "") || "ready"}** – ${shown.sentence}`,
    "",
    "| | |",
    "|---|---|",
    ...shown.facts.map(([name, value]) => `| ${name} | ${cell(value)} |`),
    "",
    ...documentLines(status, place),
    ...folderLines(status?.folders ?? []),
    "Nothing of this leaves your machine.",
    "",
  ].join("\n");
}

function documentLines(status: Status | undefined, place: Place): string[] {
  const lines: string[] = [];
  if (place.document !== undefined) {
    const reason = status?.disabledReason;
    const why = reason === undefined ? "completions are on." : sentenceOf(reason);
    lines.push(`## ${place.document}`, "", status === undefined ? "The server is not running." : capital(why), "");
    const last = status?.lastReason;
    if (last !== undefined && last !== reason) lines.push(`The last request got nothing: ${sentenceOf(last)}`, "");
  }
  if (!place.inlineSuggestEnabled) {
    lines.push("The editor itself shows no inline suggestions: `editor.inlineSuggest.enabled` is off.", "");
  }
  return lines;
}

function folderLines(folders: readonly AdapterStatus[]): string[] {
  if (folders.length === 0) return [];
  const rows = folders.map(
    ({ folder, generation, files, pendingFiles, state, enabled, message }) =>
      `| ${cell(folder)} | ${generation} | ${files} | ${pendingFiles} | ${enabled ? cell(state) : "off"} | ${cell(message)} |`,
  );
  return ["## Folders", "", "| folder | generation | files | waiting | state | note |", "|---|--:|--:|--:|---|---|", ...rows, ""];
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function cell(text: string): string {
  return text.replace(/[\\|<>`*_[\]]/g, "\\$&").replace(/\s+/g, " ");
}
