/** The server's life: found, started, watched, started again. Everything else asks it through `request`. */

import type { ChildProcess } from "node:child_process";
import type { Disposable, LogOutputChannel } from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";
import type { ClientContext } from "./client";
import type { Launch } from "./discovery";
import { start } from "./processes";
import { DID_CHANGE_TRUST, type TrustParams } from "./protocol";
import { CrashBudget, Restarts } from "./restarts";
import type { Unusable } from "./unusable";
import type { Store } from "./view";

const START_MS = 120_000;

export interface ServerParts {
  store: Store;
  log: LogOutputChannel;
  /** An existing folder of our own to run in: Python imports from its working directory, so it must not be the workspace. */
  cwd: string;
  find(): Promise<Launch | undefined>;
  context(onEnded: () => void): ClientContext;
  /** Whether a start that failed can never succeed. `error`: its process did not even begin. */
  unusable(launch: Launch, error: NodeJS.ErrnoException | undefined): Promise<Unusable | undefined>;
  /** A problem of the server's life, to be shown once; with the setting at fault, if it is one's. */
  onProblem(sentence: string, life: "missing" | "unusable" | "crashed", setting?: string): void;
}

export class NotRunning extends Error {
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
  private readonly restarts = new Restarts(() => this.begin());

  constructor(private readonly parts: ServerParts) {}

  /** Start, or stop and start anew. Calls while that goes on share one more start. */
  restart(): Promise<void> {
    this.budget.reset();
    return this.restarts.request();
  }

  /** Ask the running server. NotRunning if there is none. */
  async request<R>(method: string, params: object = {}): Promise<R> {
    return this.running().sendRequest<R>(method, params);
  }

  /** Run one of the server's commands. */
  async execute<R>(command: string, ...args: unknown[]): Promise<R> {
    return this.running().sendRequest<R>("workspace/executeCommand", { command, arguments: args });
  }

  async tellTrust(params: TrustParams): Promise<void> {
    await this.client?.sendNotification(DID_CHANGE_TRUST, params);
  }

  /** End the server; the answer comes when its process may be considered gone. */
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
    if (this.client === undefined || store.view.life !== "running") throw new NotRunning(store.view.lifeMessage);
    return this.client;
  }

  private async begin(): Promise<void> {
    const { store, log } = this.parts;
    await this.stop();
    if (this.disposed) return;
    const gone = { status: undefined, adapter: undefined, documentReason: undefined, lastReason: undefined, serverVersion: undefined };
    store.update({ ...gone, life: store.view.life === "restarting" ? "restarting" : "starting", lifeMessage: "", lifeSetting: undefined });
    const launch = await this.parts.find();
    if (launch === undefined) {
      const sentence = "No Python environment with the c2l-lsp package was found.";
      store.update({ life: "missing", lifeMessage: sentence });
      this.parts.onProblem(sentence, "missing");
      return;
    }
    log.info(`Starting the server (${launch.from}): ${[launch.command, ...launch.args].join(" ")}`);
    this.startError = undefined;
    try {
      await this.connect(launch);
    } catch (error) {
      const why = await this.parts.unusable(launch, this.startError);
      if (why === undefined) this.failed(error instanceof Error ? error.message : String(error));
      else this.cannot(why);
    }
  }

  private async connect(launch: Launch): Promise<void> {
    const { store, cwd, log } = this.parts;
    // The client library is most of this extension's code: loaded here, it does not hold up activation.
    const { createClient } = await import("./client");
    let up = false;
    const serve = async (): Promise<ChildProcess> => {
      try {
        this.process = await start(cwd, launch.command, launch.args);
      } catch (error) {
        this.startError = error as NodeJS.ErrnoException;
        throw error;
      }
      return this.process;
    };
    const client = createClient(
      serve,
      this.parts.context(() => {
        if (up && this.client === client) this.ended();
      }),
    );
    this.client = client;
    await within(START_MS, client.start(), () => this.process?.kill());
    if (this.client !== client) return;
    up = true;
    const version = client.initializeResult?.serverInfo?.version;
    log.info(`The server is running, version ${version ?? "unknown"}.`);
    store.update({ life: "running", lifeMessage: "", serverVersion: version });
  }

  private ended(): void {
    this.failed("The server ended unexpectedly.");
  }

  /** What the user named can never start: trying again would only hide why. */
  private cannot({ sentence, setting }: Unusable): void {
    const { process } = this;
    this.client = this.process = undefined;
    if (this.disposed) return;
    process?.kill();
    this.parts.log.error(sentence);
    this.parts.store.update({ life: "missing", lifeMessage: sentence, lifeSetting: setting, status: undefined });
    this.parts.onProblem(sentence, "unusable", setting);
  }

  /** The server ended, or did not start: try again soon, unless that was tried often enough. */
  private failed(why: string): void {
    const { store, log } = this.parts;
    const { process } = this;
    this.client = this.process = undefined;
    if (this.disposed) return;
    process?.kill(); // its pipe may be broken while it lives on
    const wait = this.budget.spend(Date.now());
    log.error(why);
    if (wait === undefined) {
      const sentence = `The server does not stay up. ${why}`;
      store.update({ life: "crashed", lifeMessage: sentence, status: undefined });
      this.parts.onProblem(sentence, "crashed");
      return;
    }
    store.update({ life: "restarting", lifeMessage: `${why} It is being started again.`, status: undefined });
    this.retry = setTimeout(() => void this.restarts.request(), wait);
  }
}

async function within<T>(ms: number, work: Promise<T>, onLate: () => void): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      onLate();
      reject(new Error(`The server did not answer within ${ms / 1000} seconds.`));
    }, ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
