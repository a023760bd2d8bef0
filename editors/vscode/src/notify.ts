/** Notifications: one per problem, with the buttons that fix it, filtered by c2l.showNotifications. */

import { commands, window, workspace } from "vscode";
import { type Fix, fixesFor, isShown, type Level, levelOf, type NotificationSetting, OpenMessages } from "./problems";
import { type Problem, SECTION } from "./protocol";

export class Notifications {
  private readonly open = new OpenMessages();

  /** Show a problem that the server reported. The server has applied c2l.showNotifications already. */
  async showServerProblem(problem: Problem): Promise<void> {
    await this.show(levelOf(problem), problem.message, fixesFor(problem));
  }

  /** Show a problem that this extension detected, if c2l.showNotifications allows it. Resolves when it is dismissed. */
  async showProblem(level: Level, sentence: string, fixes: Fix[]): Promise<void> {
    const setting = workspace.getConfiguration(SECTION).get<NotificationSetting>("showNotifications", "onError");
    if (isShown(level, setting)) await this.show(level, sentence, fixes);
  }

  /** Show the result of a command that the user ran; c2l.showNotifications does not apply. */
  async showReply(level: Level, sentence: string, fixes: Fix[] = []): Promise<void> {
    await this.show(level, sentence, fixes);
  }

  private async show(level: Level, sentence: string, fixes: Fix[]): Promise<void> {
    if (!this.open.add(sentence)) return;
    try {
      const text = sentence.startsWith("C2L") ? sentence : `C2L: ${sentence}`;
      const chosen = await SHOW[level](text, ...fixes.map((fix) => fix.title));
      const fix = fixes.find((one) => one.title === chosen);
      if (fix !== undefined) await commands.executeCommand(fix.command, ...(fix.args ?? []));
    } finally {
      this.open.remove(sentence);
    }
  }
}

const SHOW: Record<Level, (text: string, ...buttons: string[]) => Thenable<string | undefined>> = {
  error: (text, ...buttons) => window.showErrorMessage(text, ...buttons),
  warning: (text, ...buttons) => window.showWarningMessage(text, ...buttons),
  info: (text, ...buttons) => window.showInformationMessage(text, ...buttons),
};
