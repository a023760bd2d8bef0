/** Offers, shows and cancels the set-up of this extension's own Python environment. Nothing is installed unasked. */

import { rm } from "node:fs/promises";
import { type LogOutputChannel, ProgressLocation, window, workspace } from "vscode";
import { pythonOf } from "./discovery";
import { setUp } from "./environment";
import { SET_UP } from "./menu";
import type { Notifications } from "./notify";
import { run } from "./processes";
import { activePython } from "./python";

/**
 * Resolves to whether the environment is there now. `cwd` must be safe: Python imports from it. The server is the one of
 * this extension's `version`: whatever is published later under that name is not installed.
 */
export async function setUpCommand(
  cwd: string,
  folder: string,
  version: string,
  notifications: Notifications,
  log: LogOutputChannel,
): Promise<boolean> {
  const requirement = `c2l-lsp==${version}`;
  const question = `Set up a Python environment with ${requirement}?`;
  const detail =
    `It is created in ${folder}, with PyTorch about 1 GB, and touches no other Python. ` +
    "You can watch and cancel it; deleting that folder undoes it.";
  if ((await window.showInformationMessage(question, { modal: true, detail }, "Set Up")) !== "Set Up") return false;
  // An interpreter inside an untrusted workspace is not run.
  const active = workspace.isTrusted ? await activePython(workspace.workspaceFolders?.[0]?.uri) : undefined;
  const options = { location: ProgressLocation.Notification, title: "C2L: setting up Python", cancellable: true };
  const abort = new AbortController();
  try {
    await window.withProgress(options, async (progress, token) => {
      token.onCancellationRequested(() => {
        abort.abort();
      });
      const onStep = (message: string): void => {
        log.info(message);
        progress.report({ message });
      };
      const work = {
        bases: [...(active === undefined ? [] : [active]), "python3", "python"],
        folder,
        python: pythonOf(folder),
        requirement,
        run: run.bind(undefined, cwd),
        remove: (gone: string) => rm(gone, { recursive: true, force: true }),
        onLine: (line: string) => {
          log.info(line);
        },
        onStep,
      };
      await setUp(work, abort.signal);
    });
    return true;
  } catch (error) {
    if (abort.signal.aborted) return false;
    const why = error instanceof Error ? error.message : String(error);
    log.error(why);
    await notifications.answer("error", why, [{ title: "Try Again", command: SET_UP }]);
    return false;
  }
}
