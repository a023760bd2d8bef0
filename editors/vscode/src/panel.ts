/** The webview panel "Adapter Report": collects its data from the server and forwards its buttons. */

import { randomBytes } from "node:crypto";
import { type Disposable, type ExtensionContext, Uri, ViewColumn, type WebviewPanel, window, workspace } from "vscode";
import type { Generations } from "./history";
import { panelData, type PanelInput } from "./panelModel";
import { type AdapterInfo, Method, type StatisticsReport, type Status } from "./protocol";
import { CoalescedJob } from "./restarts";
import type { Server } from "./server";
import type { Store } from "./view";
import styles from "./webview/panel.css";

export interface PanelParts {
  context: ExtensionContext;
  store: Store;
  server: Server;
  generations: Generations;
  /** Returns the size of each folder's state directory in MB. */
  diskUse: () => Promise<Map<string, number>>;
  /** A button was pressed while `folder` was selected. */
  onAction: (action: Action, folder: string) => Promise<void>;
}

export type Action = "regenerate" | "deepen" | "reset" | "export" | "toggle";
type Message = { kind: "ready" } | { kind: "folder"; folder: string } | { kind: "action"; action: Action };

const TITLE = "Adapter Report";
const QUIET_MS = 300;

export class Panel implements Disposable {
  private view: WebviewPanel | undefined;
  private folder = "";
  private diskMb = new Map<string, number>();
  private timer: NodeJS.Timeout | undefined;
  private readonly diskUse = new CoalescedJob(async () => {
    this.diskMb = await this.parts.diskUse();
    this.scheduleDraw(0);
  });

  constructor(private readonly parts: PanelParts) {}

  show(folder: string): void {
    this.folder = folder;
    if (this.view === undefined) this.open();
    else this.view.reveal();
    this.scheduleDraw(0);
    this.refreshDiskUse();
  }

  /** Measure the disk use again if the panel is visible. Calls during a measurement share the next one. */
  refreshDiskUse(): void {
    if (this.view?.visible === true) void this.diskUse.request();
  }

  dispose(): void {
    this.view?.dispose();
  }

  private open(): void {
    const { context, store } = this.parts;
    const code = Uri.joinPath(context.extensionUri, "dist");
    const view = window.createWebviewPanel("c2l.report", TITLE, ViewColumn.Active, {
      enableScripts: true,
      localResourceRoots: [code],
    });
    const listening = store.listen(() => {
      this.scheduleDraw(QUIET_MS);
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
      this.refreshDiskUse();
    }
    this.scheduleDraw(0);
  }

  /** Draw after `ms`; a later call replaces an earlier one that has not run. */
  private scheduleDraw(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.draw(), ms);
  }

  private async draw(): Promise<void> {
    if (this.view?.visible !== true) return;
    const input = await this.collect();
    await this.view.webview.postMessage(panelData(input));
  }

  private async collect(): Promise<PanelInput> {
    const { store, server, generations } = this.parts;
    const folders = (workspace.workspaceFolders ?? []).map(({ uri, name }) => ({ path: uri.fsPath, name }));
    const folder = folders.some(({ path }) => path === this.folder) ? this.folder : (folders[0]?.path ?? "");
    const input: PanelInput = {
      folders,
      folder,
      status: undefined,
      info: undefined,
      statistics: undefined,
      generations: [],
      diskMb: this.diskMb.get(folder),
      now: new Date(),
      error: folder === "" ? "No folder is open, so there is no adapter." : "",
    };
    if (store.view.processState !== "running") return { ...input, error: store.view.processMessage || "The server is not running." };
    try {
      input.status = await server.request<Status>(Method.STATUS, folder === "" ? {} : { folder });
      input.statistics = await server.request<StatisticsReport>(Method.STATISTICS);
      if (folder !== "") input.info = await server.request<AdapterInfo>(Method.ADAPTER_INFO, { folder });
      if (input.info !== undefined) generations.measured(input.info);
    } catch (error) {
      input.error = error instanceof Error ? error.message : String(error);
    }
    input.generations = generations.of(folder);
    return input;
  }
}

/** The policy admits only scripts and styles with this page's nonce, which excludes other files of the extension. */
function html(script: string): string {
  const nonce = randomBytes(18).toString("base64");
  const policy = `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'nonce-${nonce}'`;
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${TITLE}</title>
<style nonce="${nonce}">${styles}</style>
</head>
<body>
<main id="main"><p>Loading …</p></main>
<script nonce="${nonce}" src="${script}"></script>
</body>
</html>`;
}
