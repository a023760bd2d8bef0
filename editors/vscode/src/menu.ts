/** What the status item's menu offers in which situation. Knows no `vscode`; `commands` shows it. */

import { OPEN_SETTINGS } from "./problems";
import { ClientCommand, Command, Reason, State } from "./protocol";
import { isTraining, look } from "./statusText";
import type { View } from "./view";

export interface Entry {
  /** Heading of the part it begins. */
  part?: string;
  icon: string;
  label: string;
  description?: string;
  command: string;
  args?: unknown[];
}

export interface Here {
  /** URI of the active document and the name of its language. */
  uri: string | undefined;
  language: string | undefined;
  /** c2l.enable for that language. */
  languageOn: boolean;
}

/** Command of this extension alone, behind buttons; the contract's commands are the only ones in the palette. */
export const SET_UP = "c2l.internal.setUp";

export function entries(view: View, here: Here): Entry[] {
  if (view.life === "missing") return [view.lifeSetting === undefined ? SET_UP_ENTRY : change(view.lifeSetting), RESTART, LOGS];
  if (view.life !== "running") return [RESTART, LOGS];
  const parts: [string, Entry[]][] = [
    ["completions", switches(view, here)],
    ["look", looking(view)],
    ["adapter", adapter(view)],
    ["model and server", [...model(view), RESTART, LOGS]],
  ];
  return parts.flatMap(([part, rows]) => rows.map((row, index) => (index === 0 ? { ...row, part } : row)));
}

const SET_UP_ENTRY: Entry = { icon: "cloud-download", label: "Set up the Python environment…", command: SET_UP };
const change = (setting: string): Entry => ({
  icon: "gear", label: `Change ${setting}`, command: OPEN_SETTINGS, args: [setting],
});
const RESTART: Entry = { icon: "debug-restart", label: "Restart the server", command: Command.RESTART_SERVER };
const LOGS: Entry = { icon: "output", label: "Show the log", command: ClientCommand.SHOW_LOGS };

function switches(view: View, here: Here): Entry[] {
  const reason = view.status?.disabledReason;
  const snoozed = reason === Reason.SNOOZED;
  const rows: Entry[] = [];
  const isOff = reason === Reason.OFF;
  const everywhere = isOff ? "Turn completions on" : "Turn completions off";
  rows.push({ icon: isOff ? "check" : "circle-slash", label: everywhere, command: Command.TOGGLE });
  if (isOff) return rows;
  if (here.uri !== undefined) {
    const off = view.documentReason === Reason.BUFFER;
    const label = off ? "Turn on in this file" : "Turn off in this file";
    rows.push({ icon: "file", label, command: Command.TOGGLE, args: [{ uri: here.uri, enabled: off }] });
  }
  if (here.language !== undefined) {
    const label = `Turn ${here.languageOn ? "off" : "on"} for ${here.language}`;
    rows.push({ icon: "code", label, command: Command.TOGGLE_LANGUAGE, args: [{ language: here.language }] });
  }
  rows.push({
    icon: snoozed ? "bell" : "bell-slash",
    label: snoozed ? "End the snooze" : "Snooze for 5 minutes",
    command: Command.SNOOZE,
    args: [{ minutes: snoozed ? 0 : 5 }],
  });
  return rows;
}

function adapter(view: View): Entry[] {
  const adapter = view.adapter;
  if (!adapter) return [];
  const label = adapter.enabled ? "Compare: answer without the adapter" : "Compare: answer with the adapter";
  return [
    { icon: "arrow-swap", label, description: "A/B", command: Command.TOGGLE_ADAPTER },
    { icon: "refresh", label: "Learn the folder again", command: Command.REGENERATE_ADAPTER },
    isTraining(adapter.deep)
      ? { icon: "stop-circle", label: "Stop training on the folder", description: adapter.deep, command: Command.DEEPEN_ADAPTER }
      : { icon: "mortar-board", label: "Train on the folder", description: "minutes, in the background", command: Command.DEEPEN_ADAPTER },
  ];
}

function model(view: View): Entry[] {
  const name = view.status?.model ?? undefined;
  const select: Entry = { icon: "hubot", label: "Select the model…", command: ClientCommand.SELECT_MODEL };
  if (name !== undefined) select.description = name;
  if (view.status?.state === State.UNLOADED) return [select];
  return [select, { icon: "debug-pause", label: "Unload the model", command: Command.UNLOAD_MODEL }];
}

function looking(view: View): Entry[] {
  return [
    { icon: "graph", label: "What has it learned", command: Command.SHOW_REPORT },
    { icon: "pulse", label: "Statistics", command: Command.SHOW_STATISTICS },
    { icon: "question", label: "Why is (nothing) shown", description: look(view).sentence, command: Command.SHOW_STATUS },
  ];
}
