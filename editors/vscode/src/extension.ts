/** Wires the parts together. Everything that takes time begins here and is waited for nowhere. */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { commands, env, type ExtensionContext, Uri, window, workspace } from "vscode";
import { AdapterCommands } from "./adapterCommands";
import { Again } from "./again";
import { registerCommands } from "./commands";
import { findServer, type Launch, pythonOf } from "./discovery";
import { diskUse } from "./diskUse";
import { Generations } from "./history";
import { SET_UP } from "./menu";
import { Missing, MISSING_FIXES, SILENCE } from "./missing";
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
import { unusable } from "./unusable";
import { Store } from "./view";

export function activate(context: ExtensionContext): void {
  const log = window.createOutputChannel("C2L", { log: true });
  const store = new Store();
  store.update({ trusted: workspace.isTrusted });
  const notifications = new Notifications();
  const again = new Again();
  const missing = new Missing(context.globalState);
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
      launch = await findServer(places(cwd, environment));
      return launch;
    },
    context: (onEnded) => ({
      log,
      keys,
      switches,
      onEnded,
      onStatus: (status) => {
        // The server tells of the folder it works in; which document is in front, the refresher asks.
        store.update(store.view.adapter === undefined ? { status, adapter: status.adapter ?? undefined } : { status });
        refresher.soon();
      },
      onAdapter: (change) => {
        generations.record(change);
        refresher.adapter(change.folder);
        panel.measure();
      },
      onProblem: (problem) => void notifications.told(problem),
      onMessage: (level, sentence) => void notifications.problem(level, sentence, [LOG]),
      onPulled: () => {
        refresher.soon();
      },
      onAnswered: (uri, items, invoked) => {
        if (items === 0 && invoked) {
          again.allow();
          tellWhy(uri).catch(() => undefined); // the server ended, which is told elsewhere
        }
        refresher.soon();
      },
    }),
    unusable: (found, error) => unusable(found, error, (python) => hasServer(cwd, python)),
    onProblem: (sentence, life, setting = SECTION) => {
      if (life === "crashed") void notifications.problem("error", sentence, [RESTART, LOG]);
      else if (life === "unusable") void notifications.problem("error", sentence, [openSettings(setting), LOG]);
      else if (missing.tells()) void notifications.problem("error", sentence, MISSING_FIXES);
    },
  });
  /** The user asked for a completion and got none. */
  const tellWhy = async (uri: string): Promise<void> => {
    const { lastReason, disabledReason } = await server.request<Status>(Method.STATUS, { textDocument: { uri } });
    window.setStatusBarMessage(`C2L: ${sentenceOf(lastReason ?? disabledReason ?? Reason.EMPTY)}`, 4000);
  };
  const refresher = new Refresher(store, server, generations);
  const refresh = (): void => {
    refresher.soon();
  };
  const adapters = new AdapterCommands({ server, notifications, generations, switches, refresh });
  const pages = new Pages();
  const panel = new Panel({
    context,
    store,
    server,
    generations,
    disk: () => diskUse(cwd, launch),
    onAction: (action, folder) => adapters.run(action, folder).catch((error: unknown) => {
      void notifications.answer("error", error instanceof Error ? error.message : String(error));
    }),
  });
  /** Settings that a server reads once, when it starts. */
  const readAtStart = (): string => {
    const configuration = workspace.getConfiguration(SECTION);
    return JSON.stringify([users(configuration, keys), configuration.get("trace.server")]);
  };
  let read = readAtStart();
  /** Start the server with the first thing it can serve: a window without one needs no model in memory. */
  const begin = (): void => {
    if (store.view.life !== "idle" || !isWanted()) return;
    store.update({ life: "starting" });
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
    again,
    pages,
    panel,
    ...createStatusItems(store),
    ...registerCommands({
      store, server, adapters, notifications, pages, panel, switches, showLog, refresh,
    }),
    commands.registerCommand(SET_UP, install),
    commands.registerCommand(SILENCE, () => {
      missing.silence();
    }),
    commands.registerCommand(OPEN_FILE, (path: string) => commands.executeCommand("vscode.open", Uri.file(path))),
    commands.registerCommand(OPEN_SETTINGS, showSettings),
    store.listen(({ life }) => {
      if (life === "running") missing.found();
    }),
    workspace.onDidChangeConfiguration((event) => {
      const before = read;
      read = readAtStart();
      if (read !== before && store.view.life !== "idle") void server.restart();
      else if (event.affectsConfiguration(SECTION)) {
        refresh();
        begin();
      }
    }),
    workspace.onDidOpenTextDocument(begin),
    workspace.onDidChangeWorkspaceFolders(begin),
    workspace.onDidGrantWorkspaceTrust(() => {
      store.update({ trusted: true });
      if (store.view.life === "missing") void server.restart();
      else void server.tellTrust({ trusted: true });
    }),
    window.onDidChangeActiveTextEditor(refresh),
    workspace.onDidCloseTextDocument((document) => {
      switches.closed(document.uri.toString());
    }),
  );
  store.update({ life: "idle" });
  begin();
  void onPythonChanged(() => {
    if (store.view.life === "idle") return;
    const fromThere = launch === undefined || launch.from === "python-extension";
    if (fromThere) void server.restart();
  }).then((listening) => context.subscriptions.push(listening));
}

const LOG: Fix = { title: "Show Log", command: ClientCommand.SHOW_LOGS };
const RESTART: Fix = { title: "Restart", command: Command.RESTART_SERVER };

/** In a remote window the settings of the machine are those of the remote one: the user's page does not list them. */
function showSettings(setting: string): Thenable<unknown> {
  const remote = env.remoteName !== undefined && isMachine(`${setting}.`.replace(/^c2l\./, ""));
  if (remote) return commands.executeCommand("workbench.action.openRemoteSettings", { query: setting });
  return commands.executeCommand("workbench.action.openSettings", setting);
}

/** Whether this window has a folder, or a document of a language that is on. */
function isWanted(): boolean {
  if ((workspace.workspaceFolders ?? []).length > 0) return true;
  return workspace.textDocuments.some((document) => {
    const map = workspace.getConfiguration(SECTION, document).get<Record<string, boolean>>("enable", {});
    return ["file", "untitled"].includes(document.uri.scheme) && enabledFor(map, document.languageId);
  });
}

function places(cwd: string, environment: string): Parameters<typeof findServer>[0] {
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
