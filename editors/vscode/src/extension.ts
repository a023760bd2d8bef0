/** Wires the parts together. Everything that takes time begins here and is waited for nowhere. */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { commands, type ExtensionContext, window, workspace } from "vscode";
import { AdapterCommands } from "./adapterCommands";
import { registerCommands } from "./commands";
import { findServer, type Launch, pythonOf } from "./discovery";
import { diskUse } from "./diskUse";
import { Generations, Latencies } from "./history";
import { SET_UP } from "./menu";
import { Notifications } from "./notify";
import { Pages } from "./pages";
import { Panel } from "./panel";
import { hasServer, which } from "./processes";
import { Reason, SECTION, sentenceOf } from "./protocol";
import { activePython, onPythonChanged } from "./python";
import { Refresher } from "./refresher";
import { missingFixes, Server } from "./server";
import { setUpCommand } from "./setUpCommand";
import { keysOf, needsRestart } from "./settings";
import { createStatusItems } from "./statusItems";
import { Store } from "./view";

export function activate(context: ExtensionContext): void {
  const log = window.createOutputChannel("C2L", { log: true });
  const store = new Store();
  store.update({ trusted: workspace.isTrusted });
  const notifications = new Notifications();
  const latencies = new Latencies();
  const generations = new Generations(context.workspaceState);
  const turnedOn = new Set<string>();
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
      latencies,
      turnedOn,
      onEnded,
      onStatus: (status) => {
        // The server tells of the folder it works in; which document is in front, the refresher asks.
        store.update(store.view.adapter === undefined ? { status, adapter: status.adapter ?? undefined } : { status });
        refresher.soon();
      },
      onAdapter: (change) => {
        generations.record(change);
        refresher.adapter(change.folder);
      },
      onMessage: (level, sentence) => void notifications.problem(level, sentence),
      onPulled: () => {
        refresher.soon();
      },
      onAnswered: (items, invoked) => {
        if (items === 0 && invoked) window.setStatusBarMessage(`C2L: ${why()}`, 4000);
        refresher.soon();
      },
      adapted: () => store.view.adapter?.enabled === true && store.view.adapter.generation > 0,
    }),
    onProblem: (sentence, missing) =>
      void notifications.problem("error", sentence, missing ? missingFixes(SET_UP) : undefined),
  });
  const why = (): string => sentenceOf(store.view.documentReason ?? Reason.EMPTY);
  const refresher = new Refresher(store, server, generations);
  const refresh = (): void => {
    refresher.soon();
  };
  const adapters = new AdapterCommands({ server, notifications, generations, refresh });
  const pages = new Pages();
  const panel = new Panel({
    context,
    store,
    server,
    generations,
    latencies,
    disk: () => diskUse(cwd, launch),
    onAction: (action, folder) => adapters.run(action, folder).catch((error: unknown) => {
      void notifications.answer("error", error instanceof Error ? error.message : String(error));
    }),
  });
  const install = async (): Promise<void> => {
    if (await setUpCommand(cwd, environment, notifications, log)) await server.restart();
  };
  const showLog = (): void => {
    log.show();
  };

  context.subscriptions.push(
    log,
    server,
    refresher,
    pages,
    panel,
    ...createStatusItems(store),
    ...registerCommands({
      store, server, adapters, notifications, pages, panel, turnedOn, showLog, refresh,
    }),
    commands.registerCommand(SET_UP, install),
    workspace.onDidChangeConfiguration((event) => {
      if (needsRestart((section) => event.affectsConfiguration(section))) void server.restart();
      else refresh();
    }),
    workspace.onDidGrantWorkspaceTrust(() => {
      store.update({ trusted: true });
      if (store.view.life === "missing") void server.restart();
      else void server.tellTrust({ trusted: true });
    }),
    window.onDidChangeActiveTextEditor(refresh),
    workspace.onDidCloseTextDocument((document) => turnedOn.delete(document.uri.toString())),
  );
  void server.restart();
  void onPythonChanged(() => {
    const fromThere = launch === undefined || launch.from === "python-extension";
    if (fromThere) void server.restart();
  }).then((listening) => context.subscriptions.push(listening));
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
