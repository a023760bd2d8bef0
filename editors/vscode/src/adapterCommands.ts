/** What is done to a folder's adapter: learn again, forget, export, compare. */

import { type CancellationToken, commands, type Progress, ProgressLocation, type QuickPickItem, Uri, window, workspace, type WorkspaceFolder } from "vscode";
import type { Generations } from "./history";
import type { Notifications } from "./notify";
import type { Action } from "./panel";
import { type AdapterStatus, type Exported, Method } from "./protocol";
import { isTraining } from "./statusText";
import type { Server } from "./server";
import type { Switches } from "./switches";

const FOLLOW_MS = 1_000;

export interface AdapterParts {
  server: Server;
  notifications: Notifications;
  generations: Generations;
  switches: Switches;
  refresh: () => void;
}

export class AdapterCommands {
  constructor(private readonly parts: AdapterParts) {}

  /** Do it to a folder by its path, or to the one the user works in. */
  async run(action: Action, folder: string | undefined): Promise<void> {
    const path = folder ?? (await pickFolder());
    if (path === undefined) return;
    await this[action](path);
    this.parts.refresh();
  }

  private async regenerate(folder: string): Promise<void> {
    await this.parts.server.request(Method.ADAPTER_REGENERATE, { folder });
  }

  private async forget(folder: string): Promise<void> {
    const question = `Forget everything that was learned from ${name(folder)}?`;
    const detail = "The folder is then read again from the beginning. Your files are not touched.";
    if ((await window.showWarningMessage(question, { modal: true, detail }, "Forget")) !== "Forget") return;
    const last = this.parts.generations.of(folder).at(-1)?.generation ?? 0;
    await this.parts.server.request(Method.ADAPTER_RESET, { folder });
    this.parts.generations.forget(folder, last);
  }

  private async export(folder: string): Promise<void> {
    const chosen = await window.showSaveDialog({
      title: "Export the adapter as a PEFT folder",
      saveLabel: "Export",
      defaultUri: Uri.joinPath(Uri.file(folder), "..", `${name(folder)}-adapter`),
    });
    if (chosen === undefined) return;
    const title = `C2L: exporting the adapter of ${name(folder)}`;
    const done = await window.withProgress({ location: ProgressLocation.Notification, title }, () =>
      this.parts.server.request<Exported>(Method.ADAPTER_EXPORT, { folder, out: chosen.fsPath }),
    );
    const text = `Generation ${done.generation} was exported with rank ${done.rank} to ${done.out}.`;
    const open = { title: "Open Folder", command: "revealFileInOS", args: [Uri.file(done.out)] };
    void this.parts.notifications.answer("info", text, [open]);
  }

  /** Train a LoRA of the folder behind everything else, or stop that. What comes of it is shown, since it was asked for. */
  private async deepen(folder: string): Promise<void> {
    const { server, notifications, refresh } = this.parts;
    const { deep } = await server.request<AdapterStatus>(Method.ADAPTER_INFO, { folder });
    const cancel = isTraining(deep);
    await server.request<AdapterStatus>(Method.ADAPTER_DEEPEN, { folder, cancel });
    if (cancel) return;
    const title = `C2L: training on ${name(folder)}`;
    const options = { location: ProgressLocation.Notification, title, cancellable: true };
    const told = window.withProgress(options, (progress, token) => this.follow(folder, progress, token));
    void told.then(
      (outcome) => {
        refresh();
        if (outcome !== "") void notifications.answer("info", `Training on ${name(folder)}: ${outcome}.`);
      },
      () => undefined, // the server ended, which is told elsewhere
    );
  }

  /** Until training is over: its outcome, "" if it was stopped. The language client's own progress has no button. */
  private async follow(folder: string, progress: Progress<{ message: string }>, token: CancellationToken): Promise<string> {
    const { server } = this.parts;
    const stopping = token.onCancellationRequested(() => {
      void server.request(Method.ADAPTER_DEEPEN, { folder, cancel: true });
    });
    try {
      for (;;) {
        const { deep } = await server.request<AdapterStatus>(Method.ADAPTER_INFO, { folder });
        if (token.isCancellationRequested) return "";
        if (!isTraining(deep)) return deep;
        progress.report({ message: deep });
        await new Promise((resolve) => setTimeout(resolve, FOLLOW_MS));
      }
    } finally {
      stopping.dispose();
    }
  }

  private async toggle(folder: string): Promise<void> {
    const adapter = await this.parts.server.request<AdapterStatus>(Method.ADAPTER_SET_ENABLED, { folder });
    this.parts.switches.adapter(adapter.folder, adapter.enabled);
    const text = adapter.enabled ? "C2L answers with the adapter." : "C2L answers without the adapter.";
    window.setStatusBarMessage(text, 4000);
    // What is shown came from the other side of the comparison.
    await commands.executeCommand("editor.action.inlineSuggest.hide");
    if (window.activeTextEditor !== undefined) await commands.executeCommand("editor.action.inlineSuggest.trigger");
  }
}

/** The folder of the active document, the only one, or the one the user picks. */
export async function pickFolder(): Promise<string | undefined> {
  const folders = workspace.workspaceFolders ?? [];
  const uri = window.activeTextEditor?.document.uri;
  const active = uri && workspace.getWorkspaceFolder(uri);
  if (active !== undefined) return active.uri.fsPath;
  if (folders.length < 2) return folders[0]?.uri.fsPath;
  const items = folders.map((folder: WorkspaceFolder): QuickPickItem & { path: string } => ({
    label: folder.name,
    description: folder.uri.fsPath,
    path: folder.uri.fsPath,
  }));
  return (await window.showQuickPick(items, { title: "C2L: which folder?" }))?.path;
}

function name(folder: string): string {
  return folder.split(/[\\/]/).filter(Boolean).pop() ?? folder;
}
