/** The server process: finding, starting, watching and restarting it, and requests to it. */

import type { ChildProcess } from "node:child_process";
import type { Disposable, LogOutputChannel } from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";
import type { ClientContext } from "./client";
import type { Launch } from "./discovery";
import { startProcess } from "./processes";
import { type CursorParams, DID_CHANGE_TRUST, DID_MOVE_CURSOR, type TrustParams } from "./protocol";
import { CrashBudget, CoalescedJob } from "./restarts";
import type { InvalidServerSetting } from "./invalidServer";
import type { Store } from "./view";

const START_TIMEOUT_MS = 120_000;

export interface ServerParts {
  store: Store;
  log: LogOutputChannel;
  /** Working directory of the server. Must exist and must not be the workspace: Python imports from it. */
  cwd: string;
  find(): Promise<Launch | undefined>;
  context(onExit: () => void): ClientContext;
  /** Returns what is wrong with the setting if a failed start cannot succeed later. `error`: from spawning the process. */
  invalidServerSetting(launch: Launch, error: NodeJS.ErrnoException | undefined): Promise<InvalidServerSetting | undefined>;
  /** The server cannot run. `setting`: key of the setting to correct, with `invalid`. */
  onProblem(sentence: string, problem: "missing" | "invalid" | "crashed", setting?: string): void;
}

export class ServerNotRunningError extends Error {
  constructor(sentence: string) {
    super(sentence || "The server is not running.");
  }
}

export class Server implements Disposable {
  private client: LanguageClient | undefined;
  private process: ChildProcess | undefined;
  private retry: NodeJS.Timeout | undefined;
  private startError: NodeJS.ErrnoException | undefined;
  private disposed = false;
  private readonly budget = new CrashBudget();
  private readonly restarts = new CoalescedJob(() => this.start());

  constructor(private readonly parts: ServerParts) {}

  /** Start the server, stopping a running one first. Calls during a start share one more start. */
  restart(): Promise<void> {
    this.budget.reset();
    return this.restarts.request();
  }

  /** Send a request to the running server. Throws ServerNotRunningError if there is none. */
  async request<R>(method: string, params: object = {}): Promise<R> {
    return this.running().sendRequest<R>(method, params);
  }

  /** Run one of the server's commands. Throws ServerNotRunningError if no server is running. */
  async execute<R>(command: string, ...args: unknown[]): Promise<R> {
    return this.running().sendRequest<R>("workspace/executeCommand", { command, arguments: args });
  }

  async notifyTrust(params: TrustParams): Promise<void> {
    await this.client?.sendNotification(DID_CHANGE_TRUST, params);
  }

  /** Tell the server where the cursor rests, if it runs. It reads the text there ahead of the first key. */
  async notifyCursor(params: CursorParams): Promise<void> {
    if (this.parts.store.view.processState === "running") await this.client?.sendNotification(DID_MOVE_CURSOR, params);
  }

  /** Stop the server. Resolves when its process has exited or was killed. */
  async stop(): Promise<void> {
    clearTimeout(this.retry);
    const { client, process } = this;
    this.client = this.process = undefined;
    if (client === undefined) return;
    await client.dispose().catch(() => process?.kill());
  }

  dispose(): void {
    this.disposed = true;
    void this.stop();
  }

  private running(): LanguageClient {
    const { store } = this.parts;
    if (this.client === undefined || store.view.processState !== "running") throw new ServerNotRunningError(store.view.processMessage);
    return this.client;
  }

  private async start(): Promise<void> {
    const { store, log } = this.parts;
    await this.stop();
    if (this.disposed) return;
    const reset = { status: undefined, adapter: undefined, documentReason: undefined, lastReason: undefined, serverVersion: undefined };
    store.update({ ...reset, processState: store.view.processState === "restarting" ? "restarting" : "starting", processMessage: "", invalidSetting: undefined });
    const launch = await this.parts.find();
    if (launch === undefined) {
      const sentence = "No Python environment with the c2l-lsp package was found.";
      store.update({ processState: "missing", processMessage: sentence });
      this.parts.onProblem(sentence, "missing");
      return;
    }
    log.info(`Starting the server (${launch.source}): ${[launch.command, ...launch.args].join(" ")}`);
    this.startError = undefined;
    try {
      await this.connect(launch);
    } catch (error) {
      const invalid = await this.parts.invalidServerSetting(launch, this.startError);
      if (invalid === undefined) this.restartLater(error instanceof Error ? error.message : String(error));
      else this.giveUp(invalid);
    }
  }

  private async connect(launch: Launch): Promise<void> {
    const { store, cwd, log } = this.parts;
    // The client library is most of this extension's code. Loading it here keeps activation fast.
    const { createClient } = await import("./client");
    let up = false;
    const serve = async (): Promise<ChildProcess> => {
      try {
        this.process = await startProcess(cwd, launch.command, launch.args);
      } catch (error) {
        this.startError = error as NodeJS.ErrnoException;
        throw error;
      }
      return this.process;
    };
    const client = createClient(
      serve,
      this.parts.context(() => {
        if (up && this.client === client) this.restartLater("The server exited unexpectedly.");
      }),
    );
    this.client = client;
    await withTimeout(START_TIMEOUT_MS, client.start(), () => this.process?.kill());
    if (this.client !== client) return;
    up = true;
    const version = client.initializeResult?.serverInfo?.version;
    log.info(`The server is running, version ${version ?? "unknown"}.`);
    store.update({ processState: "running", processMessage: "", serverVersion: version });
  }

  /** Report a setting that names a server which cannot start, without retrying. */
  private giveUp({ sentence, setting }: InvalidServerSetting): void {
    const { process } = this;
    this.client = this.process = undefined;
    if (this.disposed) return;
    process?.kill();
    this.parts.log.error(sentence);
    this.parts.store.update({ processState: "missing", processMessage: sentence, invalidSetting: setting, status: undefined });
    this.parts.onProblem(sentence, "invalid", setting);
  }

  /** Schedule a restart after an exit or a failed start, or give up if it crashed too often. */
  private restartLater(why: string): void {
    const { store, log } = this.parts;
    const { process } = this;
    this.client = this.process = undefined;
    if (this.disposed) return;
    process?.kill(); // a process with a broken pipe may still be running
    const delay = this.budget.recordCrash(Date.now());
    log.error(why);
    if (delay === undefined) {
      const sentence = `The server crashed repeatedly. ${why}`;
      store.update({ processState: "crashed", processMessage: sentence, status: undefined });
      this.parts.onProblem(sentence, "crashed");
      return;
    }
    store.update({ processState: "restarting", processMessage: `${why} It is being restarted.`, status: undefined });
    this.retry = setTimeout(() => void this.restarts.request(), delay);
  }
}

/** Resolves like `work`. Calls `onTimeout` and rejects if it takes longer than `ms`. */
async function withTimeout<T>(ms: number, work: Promise<T>, onTimeout: () => void): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      onTimeout();
      reject(new Error(`The server did not answer within ${ms / 1000} seconds.`));
    }, ms);
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
