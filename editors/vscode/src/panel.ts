/** The webview panel "What has it learned": gathers what is known of a folder, and passes the buttons on. */

import { randomBytes } from "node:crypto";
import { type Disposable, type ExtensionContext, Uri, ViewColumn, type WebviewPanel, window, workspace } from "vscode";
import type { Generations } from "./history";
import { type Known, panelData } from "./panelModel";
import { type AdapterInfo, Method, type StatisticsReport, type Status } from "./protocol";
import { Restarts } from "./restarts";
import type { Server } from "./server";
import type { Store } from "./view";
import styles from "./webview/panel.css";

export interface PanelParts {
  context: ExtensionContext;
  store: Store;
  server: Server;
  generations: Generations;
  /** Size of each folder's state on disk in MB. */
  disk: () => Promise<Map<string, number>>;
  /** A button was pressed, for a folder. */
  onAction: (action: Action, folder: string) => Promise<void>;
}

export type Action = "regenerate" | "deepen" | "forget" | "export" | "toggle";
type Message = { kind: "ready" } | { kind: "folder"; folder: string } | { kind: "action"; action: Action };

const QUIET_MS = 300;

export class Panel implements Disposable {
  private view: WebviewPanel | undefined;
  private folder = "";
  private disk = new Map<string, number>();
  private timer: NodeJS.Timeout | undefined;
  private readonly measurements = new Restarts(async () => {
    this.disk = await this.parts.disk();
    this.later(0);
  });

  constructor(private readonly parts: PanelParts) {}

  show(folder: string): void {
    this.folder = folder;
    if (this.view === undefined) this.open();
    else this.view.reveal();
    this.later(0);
    this.measure();
  }

  /** What is on disk may have changed. Many calls while it is being measured make one more measurement. */
  measure(): void {
    if (this.view?.visible === true) void this.measurements.request();
  }

  dispose(): void {
    this.view?.dispose();
  }

  private open(): void {
    const { context, store } = this.parts;
    const code = Uri.joinPath(context.extensionUri, "dist");
    const view = window.createWebviewPanel("c2l.report", "What has it learned", ViewColumn.Active, {
      enableScripts: true,
      localResourceRoots: [code],
    });
    const listening = store.listen(() => {
      this.later(QUIET_MS);
    });
    view.webview.onDidReceiveMessage((message: Message) => void this.receive(message));
    view.onDidDispose(() => {
      listening.dispose();
      clearTimeout(this.timer);
      this.view = undefined;
    });
    view.webview.html = html(view.webview.asWebviewUri(Uri.joinPath(code, "panel.js")).toString());
    this.view = view;
  }

  private async receive(message: Message): Promise<void> {
    if (message.kind === "folder") this.folder = message.folder;
    if (message.kind === "action") {
      await this.parts.onAction(message.action, this.folder);
      this.measure();
    }
    this.later(0);
  }

  /** Draw soon; many changes at once are drawn once. */
  private later(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.draw(), ms);
  }

  private async draw(): Promise<void> {
    if (this.view?.visible !== true) return;
    const known = await this.gather();
    await this.view.webview.postMessage(panelData(known));
  }

  private async gather(): Promise<Known> {
    const { store, server, generations } = this.parts;
    const folders = (workspace.workspaceFolders ?? []).map(({ uri, name }) => ({ path: uri.fsPath, name }));
    const folder = folders.some(({ path }) => path === this.folder) ? this.folder : (folders[0]?.path ?? "");
    const known: Known = {
      folders,
      folder,
      status: undefined,
      info: undefined,
      statistics: undefined,
      generations: [],
      diskMb: this.disk.get(folder),
      now: new Date(),
      trouble: folder === "" ? "No folder is open, so there is nothing to learn from." : "",
    };
    if (store.view.life !== "running") return { ...known, trouble: store.view.lifeMessage || "The server is not running." };
    try {
      known.status = await server.request<Status>(Method.STATUS, folder === "" ? {} : { folder });
      known.statistics = await server.request<StatisticsReport>(Method.STATISTICS);
      if (folder !== "") known.info = await server.request<AdapterInfo>(Method.ADAPTER_INFO, { folder });
      if (known.info !== undefined) generations.measured(known.info);
    } catch (error) {
      known.trouble = error instanceof Error ? error.message : String(error);
    }
    known.generations = generations.of(folder);
    return known;
  }
}

/** Only what carries this page's nonce runs: not even other files of the extension. */
function html(script: string): string {
  const nonce = randomBytes(18).toString("base64");
  const policy = `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'nonce-${nonce}'`;
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>What has it learned</title>
<style nonce="${nonce}">${styles}</style>
</head>
<body>
<main id="main"><p>Asking the server …</p></main>
<script nonce="${nonce}" src="${script}"></script>
</body>
</html>`;
}
