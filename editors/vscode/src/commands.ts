/** The commands of the editor contract, one function each. package.json declares the same set. */

import { commands, ConfigurationTarget, type Disposable, type QuickPickItem, QuickPickItemKind, type Uri, window, workspace } from "vscode";
import { type AdapterCommands, pickFolder } from "./adapterCommands";
import { menuEntries, type MenuEntry } from "./menu";
import type { Notifications } from "./notify";
import type { Pages } from "./pages";
import type { Panel } from "./panel";
import { ClientCommand, Command, Method, Reason, SECTION, type StatisticsReport, type Status, type ToggleParams } from "./protocol";
import type { Server } from "./server";
import { enabledFor } from "./settings";
import { statisticsPage, thisWeek } from "./statistics";
import { statusPage } from "./statusPage";
import type { Switches } from "./switches";
import type { Store } from "./view";

export interface CommandParts {
  store: Store;
  server: Server;
  adapters: AdapterCommands;
  notifications: Notifications;
  pages: Pages;
  panel: Panel;
  switches: Switches;
  showLog: () => void;
  refresh: () => void;
}

type Run = (argument?: unknown) => unknown;

export function registerCommands(parts: CommandParts): Disposable[] {
  const { server, adapters } = parts;
  const table: Record<string, Run> = {
    [ClientCommand.TRIGGER_COMPLETION]: () => commands.executeCommand("editor.action.inlineSuggest.trigger"),
    [Command.TOGGLE]: (argument) => toggle(parts, argument as ToggleParams | undefined),
    [Command.TOGGLE_LANGUAGE]: (argument) => toggleLanguage(argument as ToggleParams | undefined),
    [Command.SNOOZE]: (argument) => snooze(parts, argument as { minutes?: number } | undefined),
    [ClientCommand.SHOW_MENU]: () => showMenu(parts),
    [Command.SHOW_STATUS]: () => showStatus(parts),
    [Command.SHOW_STATISTICS]: () => showStatistics(parts),
    [Command.SHOW_REPORT]: async () => {
      parts.panel.show((await pickFolder()) ?? "");
    },
    [Command.REGENERATE_ADAPTER]: () => adapters.run("regenerate", undefined),
    [Command.RESET_ADAPTER]: () => adapters.run("reset", undefined),
    [Command.EXPORT_ADAPTER]: () => adapters.run("export", undefined),
    [Command.DEEPEN_ADAPTER]: () => adapters.run("deepen", undefined),
    [Command.TOGGLE_ADAPTER]: () => adapters.run("toggle", undefined),
    [ClientCommand.SELECT_MODEL]: () => selectModel(parts),
    [Command.UNLOAD_MODEL]: () => server.request(Method.MODEL_UNLOAD),
    [Command.RESTART_SERVER]: () => server.restart(),
    [ClientCommand.SHOW_LOGS]: () => {
      parts.showLog();
    },
  };
  return Object.entries(table).map(([name, run]) =>
    commands.registerCommand(name, async (argument?: unknown) => {
      try {
        await run(argument);
      } catch (error) {
        await parts.notifications.showReply("error", error instanceof Error ? error.message : String(error), [
          { title: "Restart", command: Command.RESTART_SERVER },
          { title: "Show Log", command: ClientCommand.SHOW_LOGS },
        ]);
      }
    }),
  );
}

async function toggle({ server, switches, refresh }: CommandParts, params: ToggleParams = {}): Promise<void> {
  const { enabled } = await server.execute<{ enabled: boolean }>(Command.TOGGLE, params);
  if (params.uri) switches.setDocument(params.uri, enabled);
  else switches.setAll(enabled);
  if (!enabled) await commands.executeCommand("editor.action.inlineSuggest.hide");
  refresh();
}

/** Written to the settings (c2l.enable), so that it persists. Uses the scope in which the setting is defined already. */
async function toggleLanguage(params: ToggleParams = {}): Promise<void> {
  const language = params.language ?? window.activeTextEditor?.document.languageId;
  if (language === undefined) return;
  const configuration = workspace.getConfiguration(SECTION, window.activeTextEditor?.document);
  const map = configuration.get<Record<string, boolean>>("enable", {});
  const enabled = params.enabled ?? !enabledFor(map, language);
  const own = configuration.inspect<Record<string, boolean>>("enable");
  const target = own?.workspaceFolderValue
    ? ConfigurationTarget.WorkspaceFolder
    : own?.workspaceValue
      ? ConfigurationTarget.Workspace
      : ConfigurationTarget.Global;
  const before = own?.workspaceFolderValue ?? own?.workspaceValue ?? own?.globalValue ?? {};
  await configuration.update("enable", { ...before, [language]: enabled }, target);
}

async function snooze({ server, store, switches, refresh }: CommandParts, params: { minutes?: number } = {}): Promise<void> {
  const snoozed = store.view.status?.disabledReason === Reason.SNOOZED;
  const minutes = params.minutes ?? (snoozed ? 0 : 5);
  const { until } = await server.execute<{ until: number }>(Command.SNOOZE, { minutes });
  switches.setSnooze(until);
  await commands.executeCommand("editor.action.inlineSuggest.hide");
  refresh();
}

type Item = QuickPickItem & Pick<MenuEntry, "command" | "args">;

async function showMenu({ store }: CommandParts): Promise<void> {
  const document = window.activeTextEditor?.document;
  const map = workspace.getConfiguration(SECTION, document).get<Record<string, boolean>>("enable", {});
  const rows = menuEntries(store.view, {
    uri: document?.uri.toString(),
    language: document?.languageId,
    languageOn: document === undefined || enabledFor(map, document.languageId),
  });
  const items = rows.flatMap((row): Item[] => [
    ...(row.section === undefined ? [] : [{ label: row.section, kind: QuickPickItemKind.Separator, command: "" }]),
    { ...row, label: `$(${row.icon}) ${row.label}` },
  ]);
  const chosen = await window.showQuickPick(items, { title: "C2L", placeHolder: "Select a command" });
  if (chosen !== undefined) await commands.executeCommand(chosen.command, ...(chosen.args ?? []));
}

async function showStatus({ store, server, pages }: CommandParts): Promise<void> {
  const document = window.activeTextEditor?.document;
  const textDocument = document && { uri: document.uri.toString() };
  const running = store.view.processState === "running";
  const status = running ? await server.request<Status>(Method.STATUS, { textDocument }) : undefined;
  const inlineSuggestEnabled = workspace.getConfiguration("editor", document).get("inlineSuggest.enabled", true);
  const context = { document: document && workspace.asRelativePath(document.uri), inlineSuggestEnabled };
  await pages.show("C2L status", statusPage(store.view, status, context));
}

async function showStatistics({ server, pages }: CommandParts): Promise<void> {
  const report = await server.request<StatisticsReport>(Method.STATISTICS);
  await pages.show("C2L statistics", statisticsPage(report, thisWeek(report, new Date())));
}

type ModelItem = QuickPickItem & { choice: "shipped" | "hub" | "folder" | "file" | "named" };

const AUTO = "auto";

async function selectModel({ store }: CommandParts): Promise<void> {
  const items: ModelItem[] = [
    { label: AUTO, description: "c2l-small if this machine is fast enough, else c2l-nano", choice: "shipped" },
    { label: "c2l-small", description: "shipped with the server, more accurate", choice: "shipped" },
    { label: "c2l-nano", description: "shipped with the server, faster", choice: "shipped" },
    { label: "A Hugging Face model…", description: "a causal language model from the Hub", choice: "hub" },
    { label: "A folder on this machine…", description: "a model in Hugging Face format", choice: "folder" },
    { label: "A GGUF file on this machine…", description: "converted at the first use", choice: "file" },
    { label: "A model of Ollama or LM Studio…", description: "by name; c2l-lsp models lists them", choice: "named" },
  ];
  const current = store.view.status?.model ?? "none";
  const chosen = await window.showQuickPick(items, { title: "C2L: select a model", placeHolder: `Current model: ${current}` });
  if (chosen === undefined) return;
  const [id, path] = await chooseModel(chosen);
  if (id === undefined) return;
  const configuration = workspace.getConfiguration(SECTION);
  // Two updates cause one restart, because restart requests are coalesced.
  await configuration.update("model.path", path === "" ? undefined : path, ConfigurationTarget.Global);
  await configuration.update("model.id", id === AUTO ? undefined : id, ConfigurationTarget.Global);
}

async function chooseModel({ label, choice }: ModelItem): Promise<[id: string | undefined, path: string]> {
  if (choice === "shipped") return [label, ""];
  if (choice === "hub") {
    const prompt = "Name of a causal language model, such as Qwen/Qwen2.5-Coder-0.5B. It is downloaded on first use.";
    const validateInput = (text: string): string | undefined =>
      /^[\w.-]+(\/[\w.-]+)?$/.test(text.trim()) ? undefined : "The name must have the form owner/model.";
    return [(await window.showInputBox({ prompt, validateInput }))?.trim(), ""];
  }
  if (choice === "named") {
    const prompt = "Such as ollama:qwen2.5-coder:0.5b-base or lmstudio:publisher/name.";
    const validateInput = (text: string): string | undefined =>
      /^(ollama|lmstudio):\S/.test(text.trim()) ? undefined : "The name must begin with ollama: or lmstudio:.";
    const name = (await window.showInputBox({ prompt, validateInput }))?.trim();
    return name === undefined ? [undefined, ""] : [AUTO, name];
  }
  const file = choice === "file";
  const filters = file ? { GGUF: ["gguf"] } : undefined;
  const dialog = { canSelectFolders: !file, canSelectFiles: file, openLabel: "Use Model", ...(filters && { filters }) };
  const picked: Uri | undefined = (await window.showOpenDialog(dialog))?.[0];
  return picked === undefined ? [undefined, ""] : [AUTO, picked.fsPath];
}
