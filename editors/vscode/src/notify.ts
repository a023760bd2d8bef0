/** Notifications: one per problem, with the button that fixes it, as far as c2l.showNotifications lets them. */

import { commands, window, workspace } from "vscode";
import { type Fix, fixesFor, isWanted, type Level, levelOf, Open, type Wanted } from "./problems";
import { type Problem, SECTION } from "./protocol";

export class Notifications {
  private readonly open = new Open();

  /** A problem told by the server, which knows already that it is to be shown. */
  async told(problem: Problem): Promise<void> {
    await this.show(levelOf(problem), problem.message, fixesFor(problem));
  }

  /** A problem seen by this extension. Answers when the user has dealt with it. */
  async problem(level: Level, sentence: string, fixes: Fix[]): Promise<void> {
    const wanted = workspace.getConfiguration(SECTION).get<Wanted>("showNotifications", "onError");
    if (isWanted(level, wanted)) await this.show(level, sentence, fixes);
  }

  /** The answer to something the user asked for just now: shown whatever the settings say. */
  async answer(level: Level, sentence: string, fixes: Fix[] = []): Promise<void> {
    await this.show(level, sentence, fixes);
  }

  private async show(level: Level, sentence: string, fixes: Fix[]): Promise<void> {
    if (!this.open.begin(sentence)) return;
    try {
      const text = sentence.startsWith("C2L") ? sentence : `C2L: ${sentence}`;
      const chosen = await SHOW[level](text, ...fixes.map((fix) => fix.title));
      const fix = fixes.find((one) => one.title === chosen);
      if (fix !== undefined) await commands.executeCommand(fix.command, ...(fix.args ?? []));
    } finally {
      this.open.end(sentence);
    }
  }
}

const SHOW: Record<Level, (text: string, ...buttons: string[]) => Thenable<string | undefined>> = {
  error: (text, ...buttons) => window.showErrorMessage(text, ...buttons),
  warning: (text, ...buttons) => window.showWarningMessage(text, ...buttons),
  info: (text, ...buttons) => window.showInformationMessage(text, ...buttons),
};
