/** The entries of the status item's menu for the current state. Does not use `vscode`; `commands` shows the menu. */

import { OPEN_SETTINGS } from "./problems";
import { ClientCommand, Command, Reason, State } from "./protocol";
import { isTraining, statusDisplay } from "./statusText";
import type { View } from "./view";

export interface MenuEntry {
  /** Heading of the section that starts with this entry. */
  section?: string;
  icon: string;
  label: string;
  description?: string;
  command: string;
  args?: unknown[];
}

/** The active document. */
export interface MenuContext {
  uri: string | undefined;
  language: string | undefined;
  /** Value of c2l.enable for that language. */
  languageOn: boolean;
}

/** Internal command that sets up the Python environment; the palette lists only commands of the editor contract. */
export const SET_UP = "c2l.internal.setUp";

export function menuEntries(view: View, context: MenuContext): MenuEntry[] {
  if (view.processState === "missing") {
    return [view.invalidSetting === undefined ? SET_UP_ENTRY : changeSetting(view.invalidSetting), RESTART, LOGS];
  }
  if (view.processState !== "running") return [RESTART, LOGS];
  const sections: [string, MenuEntry[]][] = [
    ["completions", completionEntries(view, context)],
    ["information", informationEntries(view)],
    ["adapter", adapterEntries(view)],
    ["model and server", [...modelEntries(view), RESTART, LOGS]],
  ];
  return sections.flatMap(([section, rows]) => rows.map((row, index) => (index === 0 ? { ...row, section } : row)));
}

const SET_UP_ENTRY: MenuEntry = { icon: "cloud-download", label: "Set up the Python environment…", command: SET_UP };
const changeSetting = (setting: string): MenuEntry => ({
  icon: "gear", label: `Change ${setting}`, command: OPEN_SETTINGS, args: [setting],
});
const RESTART: MenuEntry = { icon: "debug-restart", label: "Restart the server", command: Command.RESTART_SERVER };
const LOGS: MenuEntry = { icon: "output", label: "Show the log", command: ClientCommand.SHOW_LOGS };

function completionEntries(view: View, context: MenuContext): MenuEntry[] {
  const reason = view.status?.disabledReason;
  const snoozed = reason === Reason.SNOOZED;
  const rows: MenuEntry[] = [];
  const isOff = reason === Reason.OFF;
  const label = isOff ? "Turn completions on" : "Turn completions off";
  rows.push({ icon: isOff ? "check" : "circle-slash", label, command: Command.TOGGLE });
  if (isOff) return rows;
  if (context.uri !== undefined) {
    const off = view.documentReason === Reason.BUFFER;
    const label = off ? "Turn on in this file" : "Turn off in this file";
    rows.push({ icon: "file", label, command: Command.TOGGLE, args: [{ uri: context.uri, enabled: off }] });
  }
  if (context.language !== undefined) {
    const label = `Turn ${context.languageOn ? "off" : "on"} for ${context.language}`;
    rows.push({ icon: "code", label, command: Command.TOGGLE_LANGUAGE, args: [{ language: context.language }] });
  }
  rows.push({
    icon: snoozed ? "bell" : "bell-slash",
    label: snoozed ? "End the snooze" : "Snooze for 5 minutes",
    command: Command.SNOOZE,
    args: [{ minutes: snoozed ? 0 : 5 }],
  });
  return rows;
}

function informationEntries(view: View): MenuEntry[] {
  return [
    { icon: "question", label: "Status", description: statusDisplay(view).sentence, command: Command.SHOW_STATUS },
    { icon: "graph", label: "Adapter report", command: Command.SHOW_REPORT },
    { icon: "pulse", label: "Statistics", command: Command.SHOW_STATISTICS },
  ];
}

function adapterEntries(view: View): MenuEntry[] {
  const adapter = view.adapter;
  if (!adapter) return [];
  const label = adapter.enabled ? "Turn the adapter off" : "Turn the adapter on";
  const description = adapter.enabled ? "compare with the base model" : "the base model is in use";
  return [
    { icon: "arrow-swap", label, description, command: Command.TOGGLE_ADAPTER },
    { icon: "refresh", label: "Rebuild the adapter", description: "from all files of the folder", command: Command.REGENERATE_ADAPTER },
    isTraining(adapter.deep)
      ? { icon: "stop-circle", label: "Stop fine-tuning", description: adapter.deep, command: Command.DEEPEN_ADAPTER }
      : { icon: "mortar-board", label: "Fine-tune on the folder", description: "several minutes in the background", command: Command.DEEPEN_ADAPTER },
  ];
}

function modelEntries(view: View): MenuEntry[] {
  const name = view.status?.model ?? undefined;
  const select: MenuEntry = { icon: "hubot", label: "Select a model…", command: ClientCommand.SELECT_MODEL };
  if (name !== undefined) select.description = name;
  if (view.status?.state === State.UNLOADED) return [select];
  return [select, { icon: "debug-pause", label: "Unload the model", command: Command.UNLOAD_MODEL }];
}
