/** Sets up the extension's own Python environment, after confirmation, with visible and cancellable progress. */

import { rm } from "node:fs/promises";
import { type LogOutputChannel, ProgressLocation, window, workspace } from "vscode";
import { pythonOf } from "./discovery";
import { setUp } from "./environment";
import { SET_UP } from "./menu";
import type { Notifications } from "./notify";
import { run } from "./processes";
import { activePython } from "./python";

/**
 * Resolves to whether the environment was created. `cwd` must be safe: Python imports from it. The requirement is pinned
 * to this extension's `version`, so that no later release is installed.
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
    `The environment is created in ${folder} and needs about 1 GB, mostly for PyTorch. ` +
    "No other Python is changed. To remove it, delete that folder.";
  if ((await window.showInformationMessage(question, { modal: true, detail }, "Set Up")) !== "Set Up") return false;
  // An untrusted workspace may have chosen its interpreter, so it is not run.
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
      const task = {
        basePythons: [...(active === undefined ? [] : [active]), "python3", "python"],
        folder,
        python: pythonOf(folder),
        requirement,
        run: run.bind(undefined, cwd),
        remove: (path: string) => rm(path, { recursive: true, force: true }),
        onLine: (line: string) => {
          log.info(line);
        },
        onStep,
      };
      await setUp(task, abort.signal);
    });
    return true;
  } catch (error) {
    if (abort.signal.aborted) return false;
    const why = error instanceof Error ? error.message : String(error);
    log.error(why);
    await notifications.showReply("error", why, [{ title: "Try Again", command: SET_UP }]);
    return false;
  }
}
