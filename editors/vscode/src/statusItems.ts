/** The status bar item and the language status item; both render the view. */

import { languages, LanguageStatusSeverity, MarkdownString, StatusBarAlignment, ThemeColor, window, workspace } from "vscode";
import { SELECTOR } from "./documents";
import { ClientCommand, Command, SECTION } from "./protocol";
import { type StatusDisplay, statusDisplay, type Severity, accessibleLabel } from "./statusText";
import type { Store, View } from "./view";

const COLOURS: Record<Severity, string | undefined> = {
  normal: undefined,
  inactive: undefined,
  warning: "statusBarItem.warningBackground",
  error: "statusBarItem.errorBackground",
};

export function createStatusItems(store: Store): { dispose(): unknown }[] {
  const bar = window.createStatusBarItem("c2l.status", StatusBarAlignment.Right, 100);
  bar.name = "C2L Completions";
  bar.command = ClientCommand.SHOW_MENU;
  const language = languages.createLanguageStatusItem("c2l.language", SELECTOR);
  language.name = "C2L Completions";
  language.command = { title: "Menu", command: ClientCommand.SHOW_MENU };

  const draw = (view: View): void => {
    const display = statusDisplay(view);
    const colour = COLOURS[display.severity];
    bar.text = `$(${display.icon}) ${display.text}`;
    bar.tooltip = tooltip(display);
    bar.backgroundColor = colour === undefined ? undefined : new ThemeColor(colour);
    bar.accessibilityInformation = { label: accessibleLabel(display), role: "button" };
    language.text = display.text;
    language.detail = display.sentence;
    language.busy = display.busy;
    language.severity = severityOf(display.severity);
    if (workspace.getConfiguration(SECTION).get<boolean>("statusBar.show", true)) bar.show();
    else bar.hide();
  };
  draw(store.view);
  const settings = workspace.onDidChangeConfiguration((event) => {
    if (event.affectsConfiguration("c2l.statusBar")) draw(store.view);
  });
  return [bar, language, settings, store.listen(draw)];
}

function tooltip(display: StatusDisplay): MarkdownString {
  const text = new MarkdownString(undefined, true);
  text.isTrusted = { enabledCommands: [Command.SHOW_REPORT, Command.SHOW_STATUS] };
  text.appendMarkdown("**C2L** – ").appendText(display.sentence).appendMarkdown("\n\n");
  if (display.facts.length > 0) text.appendMarkdown("| | |\n|---|---|\n");
  for (const [name, value] of display.facts) text.appendMarkdown(`| ${name} | ${cell(value)} |\n`);
  text.appendMarkdown(`\n[Status](command:${Command.SHOW_STATUS}) · [Adapter report](command:${Command.SHOW_REPORT})`);
  return text;
}

/** Escape text for a cell of a Markdown table. */
function cell(text: string): string {
  return text.replace(/[\\`*_{}[\]()#+!|<>~$-]/g, "\\$&").replace(/\s+/g, " ");
}

function severityOf(severity: Severity): LanguageStatusSeverity {
  if (severity === "error") return LanguageStatusSeverity.Error;
  return severity === "warning" ? LanguageStatusSeverity.Warning : LanguageStatusSeverity.Information;
}
