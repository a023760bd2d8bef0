/** Commands on the adapter of one folder: rebuild, reset, export, fine-tune, switch on or off. */

import { type CancellationToken, commands, type Progress, ProgressLocation, type QuickPickItem, Uri, window, workspace, type WorkspaceFolder } from "vscode";
import type { Generations } from "./history";
import type { Notifications } from "./notify";
import type { Action } from "./panel";
import { type AdapterStatus, type Exported, Method } from "./protocol";
import { isTraining } from "./statusText";
import type { Server } from "./server";
import type { Switches } from "./switches";

const POLL_MS = 1_000;

export interface AdapterParts {
  server: Server;
  notifications: Notifications;
  generations: Generations;
  switches: Switches;
  refresh: () => void;
}

export class AdapterCommands {
  constructor(private readonly parts: AdapterParts) {}

  /** Run an action on `folder`, or on the active folder if undefined. */
  async run(action: Action, folder: string | undefined): Promise<void> {
    const path = folder ?? (await pickFolder());
    if (path === undefined) return;
    await this[action](path);
    this.parts.refresh();
  }

  private async regenerate(folder: string): Promise<void> {
    await this.parts.server.request(Method.ADAPTER_REGENERATE, { folder });
  }

  private async reset(folder: string): Promise<void> {
    const question = `Delete the adapter of ${name(folder)}?`;
    const detail = "Everything learned from the folder is deleted from disk, and the folder is indexed again. Your files are not changed.";
    if ((await window.showWarningMessage(question, { modal: true, detail }, "Delete")) !== "Delete") return;
    const last = this.parts.generations.of(folder).at(-1)?.generation ?? 0;
    await this.parts.server.request(Method.ADAPTER_RESET, { folder });
    this.parts.generations.deleteUpTo(folder, last);
  }

  private async export(folder: string): Promise<void> {
    const chosen = await window.showSaveDialog({
      title: "Export the adapter as a PEFT folder",
      saveLabel: "Export",
      defaultUri: Uri.joinPath(Uri.file(folder), "..", `${name(folder)}-adapter`),
    });
    if (chosen === undefined) return;
    const title = `C2L: exporting the adapter of ${name(folder)}`;
    const exported = await window.withProgress({ location: ProgressLocation.Notification, title }, () =>
      this.parts.server.request<Exported>(Method.ADAPTER_EXPORT, { folder, out: chosen.fsPath }),
    );
    const text = `Exported generation ${exported.generation} (rank ${exported.rank}) to ${exported.out}.`;
    const open = { title: "Open Folder", command: "revealFileInOS", args: [Uri.file(exported.out)] };
    void this.parts.notifications.showReply("info", text, [open]);
  }

  /** Start fine-tuning a LoRA on the folder in the background and show its result; or stop it if it is running. */
  private async deepen(folder: string): Promise<void> {
    const { server, notifications, refresh } = this.parts;
    const { deep } = await server.request<AdapterStatus>(Method.ADAPTER_INFO, { folder });
    const cancel = isTraining(deep);
    await server.request<AdapterStatus>(Method.ADAPTER_DEEPEN, { folder, cancel });
    if (cancel) return;
    const title = `C2L: fine-tuning on ${name(folder)}`;
    const options = { location: ProgressLocation.Notification, title, cancellable: true };
    const finished = window.withProgress(options, (progress, token) => this.follow(folder, progress, token));
    void finished.then(
      (result) => {
        refresh();
        if (result !== "") void notifications.showReply("info", `Fine-tuning on ${name(folder)}: ${result}.`);
      },
      () => undefined, // the server exited, which is reported elsewhere
    );
  }

  /**
   * Poll until fine-tuning ends. Returns its result, or "" if the user cancelled it. The language client's own progress
   * notification has no cancel button, so this one is used.
   */
  private async follow(folder: string, progress: Progress<{ message: string }>, token: CancellationToken): Promise<string> {
    const { server } = this.parts;
    const cancellation = token.onCancellationRequested(() => {
      void server.request(Method.ADAPTER_DEEPEN, { folder, cancel: true });
    });
    try {
      for (;;) {
        const { deep } = await server.request<AdapterStatus>(Method.ADAPTER_INFO, { folder });
        if (token.isCancellationRequested) return "";
        if (!isTraining(deep)) return deep;
        progress.report({ message: deep });
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
    } finally {
      cancellation.dispose();
    }
  }

  private async toggle(folder: string): Promise<void> {
    const adapter = await this.parts.server.request<AdapterStatus>(Method.ADAPTER_SET_ENABLED, { folder });
    this.parts.switches.setAdapter(adapter.folder, adapter.enabled);
    const text = adapter.enabled ? "C2L: adapter on." : "C2L: adapter off, completions come from the base model.";
    window.setStatusBarMessage(text, 4000);
    // The ghost text on screen was computed with the previous setting.
    await commands.executeCommand("editor.action.inlineSuggest.hide");
    if (window.activeTextEditor !== undefined) await commands.executeCommand("editor.action.inlineSuggest.trigger");
  }
}

/** Returns the folder of the active document, else the only folder, else the one that the user picks. */
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
  return (await window.showQuickPick(items, { title: "C2L: select a folder" }))?.path;
}

function name(folder: string): string {
  return folder.split(/[\\/]/).filter(Boolean).pop() ?? folder;
}
