/** The status bar item and the language status item: they draw the view and decide nothing. */

import { languages, LanguageStatusSeverity, MarkdownString, StatusBarAlignment, ThemeColor, window, workspace } from "vscode";
import { ClientCommand, Command, SECTION } from "./protocol";
import { type Look, look, type Severity, spoken } from "./statusText";
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
  const language = languages.createLanguageStatusItem("c2l.language", [{ scheme: "file" }, { scheme: "untitled" }]);
  language.name = "C2L Completions";
  language.command = { title: "Menu", command: ClientCommand.SHOW_MENU };

  const draw = (view: View): void => {
    const shown = look(view);
    const colour = COLOURS[shown.severity];
    bar.text = `$(${shown.icon}) ${shown.text}`;
    bar.tooltip = tooltip(shown);
    bar.backgroundColor = colour === undefined ? undefined : new ThemeColor(colour);
    bar.accessibilityInformation = { label: spoken(shown), role: "button" };
    language.text = shown.text;
    language.detail = shown.sentence;
    language.busy = shown.busy;
    language.severity = severityOf(shown.severity);
    if (workspace.getConfiguration(SECTION).get<boolean>("statusBar.show", true)) bar.show();
    else bar.hide();
  };
  draw(store.view);
  const settings = workspace.onDidChangeConfiguration((event) => {
    if (event.affectsConfiguration("c2l.statusBar")) draw(store.view);
  });
  return [bar, language, settings, store.listen(draw)];
}

function tooltip(shown: Look): MarkdownString {
  const text = new MarkdownString(undefined, true);
  text.isTrusted = { enabledCommands: [Command.SHOW_REPORT, Command.SHOW_STATUS] };
  text.appendMarkdown("**C2L** – ").appendText(shown.sentence).appendMarkdown("\n\n");
  if (shown.facts.length > 0) text.appendMarkdown("| | |\n|---|---|\n");
  for (const [name, value] of shown.facts) text.appendMarkdown(`| ${name} | ${cell(value)} |\n`);
  text.appendMarkdown(`\n[What has it learned](command:${Command.SHOW_REPORT}) · [Why](command:${Command.SHOW_STATUS})`);
  return text;
}

/** Text of others inside a Markdown table. */
function cell(text: string): string {
  return text.replace(/[\\`*_{}[\]()#+!|<>~$-]/g, "\\$&").replace(/\s+/g, " ");
}

function severityOf(severity: Severity): LanguageStatusSeverity {
  if (severity === "error") return LanguageStatusSeverity.Error;
  return severity === "warning" ? LanguageStatusSeverity.Warning : LanguageStatusSeverity.Information;
}
