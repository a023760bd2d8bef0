/** Entry point: creates the parts and connects them. Activation starts slow work and does not wait for it. */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { commands, env, type ExtensionContext, Uri, window, workspace } from "vscode";
import { AdapterCommands } from "./adapterCommands";
import { registerCommands } from "./commands";
import { CursorReports } from "./cursor";
import { findServer, type Launch, pythonOf, type ServerSources } from "./discovery";
import { diskUse } from "./diskUse";
import { isServed } from "./documents";
import { FollowUp } from "./followUp";
import { Generations } from "./history";
import { InlineRetry } from "./inlineRetry";
import { invalidServerSetting } from "./invalidServer";
import { SET_UP } from "./menu";
import { MissingServerPrompt, MISSING_FIXES, DONT_ASK_AGAIN } from "./missingServer";
import { Notifications } from "./notify";
import { Pages } from "./pages";
import { Panel } from "./panel";
import { type Fix, OPEN_FILE, OPEN_SETTINGS, openSettings } from "./problems";
import { hasServer, which } from "./processes";
import { ClientCommand, Command, Method, Reason, SECTION, type Status } from "./protocol";
import { sentenceOf } from "./reasons";
import { activePython, onPythonChanged } from "./python";
import { Refresher } from "./refresher";
import { Server } from "./server";
import { setUpCommand } from "./setUpCommand";
import { enabledFor, isMachine, keysOf, users } from "./settings";
import { createStatusItems } from "./statusItems";
import { Switches } from "./switches";
import { Store } from "./view";

export function activate(context: ExtensionContext): void {
  const log = window.createOutputChannel("C2L", { log: true });
  const store = new Store();
  store.update({ trusted: workspace.isTrusted });
  const notifications = new Notifications();
  const inlineRetry = new InlineRetry();
  const missingPrompt = new MissingServerPrompt(context.globalState);
  const switches = new Switches(context.workspaceState);
  const generations = new Generations(context.workspaceState);
  const keys = keysOf(context.extension.packageJSON);
  const cwd = context.globalStorageUri.fsPath;
  const environment = join(cwd, "python");
  let launch: Launch | undefined;

  const server: Server = new Server({
    store,
    log,
    cwd,
    find: async () => {
      await mkdir(cwd, { recursive: true });
      launch = await findServer(serverSources(cwd, environment));
      return launch;
    },
    context: (onExit) => ({
      log,
      keys,
      switches,
      onExit,
      onStatus: (status) => {
        // This notification describes one folder. The refresher requests the one of the active document.
        store.update(store.view.adapter === undefined ? { status, adapter: status.adapter ?? undefined } : { status });
        refresher.schedule();
      },
      onAdapter: (change) => {
        generations.record(change);
        refresher.refreshAdapter(change.folder);
        panel.refreshDiskUse();
      },
      onProblem: (problem) => void notifications.showServerProblem(problem),
      onMessage: (level, sentence) => void notifications.showProblem(level, sentence, [LOG]),
      onSettingsRequested: () => {
        refresher.schedule();
      },
      onCompletionsAnswered: (uri, items, invoked) => {
        if (items === 0 && invoked) {
          inlineRetry.allow();
          showReason(uri).catch(() => undefined); // the server exited, which is reported elsewhere
        }
        refresher.schedule();
      },
    }),
    invalidServerSetting: (found, error) => invalidServerSetting(found, error, (python) => hasServer(cwd, python)),
    onProblem: (sentence, problem, setting = SECTION) => {
      if (problem === "crashed") void notifications.showProblem("error", sentence, [RESTART, LOG]);
      else if (problem === "invalid") void notifications.showProblem("error", sentence, [openSettings(setting), LOG]);
      else if (missingPrompt.shouldPrompt()) void notifications.showProblem("error", sentence, MISSING_FIXES);
    },
  });
  /** Show in the status bar why an explicit request returned no completion. */
  const showReason = async (uri: string): Promise<void> => {
    const { lastReason, disabledReason } = await server.request<Status>(Method.STATUS, { textDocument: { uri } });
    window.setStatusBarMessage(`C2L: ${sentenceOf(lastReason ?? disabledReason ?? Reason.EMPTY)}`, 4000);
  };
  const refresher = new Refresher(store, server, generations);
  const refresh = (): void => {
    refresher.schedule();
  };
  const adapters = new AdapterCommands({ server, notifications, generations, switches, refresh });
  const pages = new Pages();
  const panel = new Panel({
    context,
    store,
    server,
    generations,
    diskUse: () => diskUse(cwd, launch),
    onAction: (action, folder) => adapters.run(action, folder).catch((error: unknown) => {
      void notifications.showReply("error", error instanceof Error ? error.message : String(error));
    }),
  });
  /** Values of the settings that the server reads only when it starts. */
  const startSettings = (): string => {
    const configuration = workspace.getConfiguration(SECTION);
    return JSON.stringify([users(configuration, keys), configuration.get("trace.server")]);
  };
  let lastStartSettings = startSettings();
  /** Start the server once there is a folder or document to serve, so that other windows load no model. */
  const startIfNeeded = (): void => {
    if (store.view.processState !== "idle" || !isServerNeeded()) return;
    store.update({ processState: "starting" });
    void server.restart();
  };
  const install = async (): Promise<void> => {
    const { version } = context.extension.packageJSON as { version: string };
    if (await setUpCommand(cwd, environment, version, notifications, log)) await server.restart();
  };
  const showLog = (): void => {
    log.show();
  };

  context.subscriptions.push(
    log,
    server,
    refresher,
    new CursorReports(store, server),
    inlineRetry,
    new FollowUp(server),
    pages,
    panel,
    ...createStatusItems(store),
    ...registerCommands({
      store, server, adapters, notifications, pages, panel, switches, showLog, refresh,
    }),
    commands.registerCommand(SET_UP, install),
    commands.registerCommand(DONT_ASK_AGAIN, () => {
      missingPrompt.silence();
    }),
    commands.registerCommand(OPEN_FILE, (path: string) => commands.executeCommand("vscode.open", Uri.file(path))),
    commands.registerCommand(OPEN_SETTINGS, showSettings),
    store.listen(({ processState }) => {
      if (processState === "running") missingPrompt.serverFound();
    }),
    workspace.onDidChangeConfiguration((event) => {
      const before = lastStartSettings;
      lastStartSettings = startSettings();
      if (lastStartSettings !== before && store.view.processState !== "idle") void server.restart();
      else if (event.affectsConfiguration(SECTION)) {
        refresh();
        startIfNeeded();
      }
    }),
    workspace.onDidOpenTextDocument(startIfNeeded),
    workspace.onDidChangeWorkspaceFolders(startIfNeeded),
    workspace.onDidGrantWorkspaceTrust(() => {
      store.update({ trusted: true });
      if (store.view.processState === "missing") void server.restart();
      else void server.notifyTrust({ trusted: true });
    }),
    window.onDidChangeActiveTextEditor(refresh),
    workspace.onDidCloseTextDocument((document) => {
      switches.forgetDocument(document.uri.toString());
    }),
  );
  store.update({ processState: "idle" });
  startIfNeeded();
  void onPythonChanged(() => {
    if (store.view.processState === "idle") return;
    const affected = launch === undefined || launch.source === "python-extension";
    if (affected) void server.restart();
  }).then((listening) => context.subscriptions.push(listening));
}

const LOG: Fix = { title: "Show Log", command: ClientCommand.SHOW_LOGS };
const RESTART: Fix = { title: "Restart", command: Command.RESTART_SERVER };

/** Open the settings at one key. In a remote window, machine settings are on the page of the remote machine. */
function showSettings(setting: string): Thenable<unknown> {
  const remote = env.remoteName !== undefined && isMachine(`${setting}.`.replace(/^c2l\./, ""));
  if (remote) return commands.executeCommand("workbench.action.openRemoteSettings", { query: setting });
  return commands.executeCommand("workbench.action.openSettings", setting);
}

/** Returns whether this window has a folder, or a document whose language is on. */
function isServerNeeded(): boolean {
  if ((workspace.workspaceFolders ?? []).length > 0) return true;
  return workspace.textDocuments.some((document) => {
    const map = workspace.getConfiguration(SECTION, document).get<Record<string, boolean>>("enable", {});
    return isServed(document) && enabledFor(map, document.languageId);
  });
}

function serverSources(cwd: string, environment: string): ServerSources {
  const configuration = workspace.getConfiguration(SECTION);
  return {
    path: configuration.get("server.path", ""),
    interpreter: configuration.get("server.interpreter", ""),
    args: configuration.get<string[]>("server.args", []),
    ownPython: pythonOf(environment),
    trusted: workspace.isTrusted,
    activePython: () => activePython(workspace.workspaceFolders?.[0]?.uri),
    hasServer: (python) => hasServer(cwd, python),
    onSearchPath: () => which("c2l-lsp"),
  };
}
