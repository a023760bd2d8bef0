/** The status page: state of the server, the active document, every folder. Does not use `vscode`. */

import { type AdapterStatus, type Status } from "./protocol";
import { sentenceOf } from "./reasons";
import { statusDisplay } from "./statusText";
import type { View } from "./view";

export interface PageContext {
  /** Name of the active document. */
  document: string | undefined;
  /** Value of editor.inlineSuggest.enabled. */
  inlineSuggestEnabled: boolean;
}

export function statusPage(view: View, status: Status | undefined, context: PageContext): string {
  const display = statusDisplay(view);
  return [
    "# C2L status",
    "",
    display.sentence,
    "",
    "| | |",
    "|---|---|",
    ...display.facts.map(([name, value]) => `| ${name} | ${cell(value)} |`),
    "",
    ...documentLines(status, context),
    ...folderLines(status?.folders ?? []),
    "All data stays on this machine.",
    "",
  ].join("\n");
}

function documentLines(status: Status | undefined, context: PageContext): string[] {
  const lines: string[] = [];
  if (context.document !== undefined) {
    const reason = status?.disabledReason;
    const sentence = reason === undefined ? "Completions are on." : sentenceOf(reason);
    lines.push(`## ${context.document}`, "", status === undefined ? "The server is not running." : sentence, "");
    const last = status?.lastReason;
    if (last !== undefined && last !== reason) lines.push(`The last request returned no completion: ${sentenceOf(last)}`, "");
  }
  if (!context.inlineSuggestEnabled) {
    lines.push("VS Code shows no inline suggestions, because `editor.inlineSuggest.enabled` is off.", "");
  }
  return lines;
}

function folderLines(folders: readonly AdapterStatus[]): string[] {
  if (folders.length === 0) return [];
  const rows = folders.map(
    ({ folder, generation, files, pendingFiles, state, enabled, message }) =>
      `| ${cell(folder)} | ${generation} | ${files} | ${pendingFiles} | ${enabled ? cell(state) : "off"} | ${cell(message)} |`,
  );
  return ["## Folders", "", "| Folder | Generation | Indexed files | Waiting files | State | Note |", "|---|--:|--:|--:|---|---|", ...rows, ""];
}

function cell(text: string): string {
  return text.replace(/[\\|<>`*_[\]]/g, "\\$&").replace(/\s+/g, " ");
}
