/** One language client for one server process: what it is told at the start, and what passes between the two. */

import type { ChildProcess } from "node:child_process";
import type { Readable } from "node:stream";
import { createInterface } from "node:readline";
import { InlineCompletionTriggerKind, LogLevel, type LogOutputChannel, type TextDocument, window, workspace } from "vscode";
import {
  CloseAction,
  ErrorAction,
  LanguageClient,
  type LanguageClientOptions,
  type Middleware,
  type ShowMessageParams,
} from "vscode-languageclient/node";
import type { Level } from "./problems";
import {
  ADAPTER_DID_CHANGE,
  type AdapterChange,
  ClientCommand,
  Command,
  DID_CHANGE_STATUS,
  PROBLEM,
  type Problem,
  SECTION,
  type Status,
} from "./protocol";
import { enabledFor, explicit, users } from "./settings";
import type { Switches } from "./switches";

export interface ClientContext {
  log: LogOutputChannel;
  /** All keys of `c2l.*`, without the prefix. */
  keys: readonly string[];
  switches: Switches;
  onStatus(status: Status): void;
  onAdapter(change: AdapterChange): void;
  onProblem(problem: Problem): void;
  /** What the server asks to show without saying what it is. */
  onMessage(level: Level, sentence: string): void;
  /** The server process ended without being asked to. */
  onEnded(): void;
  /** The server asks for the settings: it knows them in a moment. */
  onPulled(): void;
  /** A completion request for a document was answered with this many items. */
  onAnswered(uri: string, items: number, invoked: boolean): void;
}

/** A language client that leaves all notifications to us; it would show its own beside ours. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

/** `serve` starts the server process. */
export function createClient(serve: () => Promise<ChildProcess>, context: ClientContext): LanguageClient {
  const client = new QuietClient(SECTION, "C2L", serve, options(context));
  client.onNotification(DID_CHANGE_STATUS, (status: Status) => {
    context.onStatus(status);
  });
  client.onNotification(ADAPTER_DID_CHANGE, (change: AdapterChange) => {
    context.onAdapter(change);
  });
  client.onNotification(PROBLEM, (problem: Problem) => {
    context.onProblem(problem);
  });
  client.onNotification("window/showMessage", (params: ShowMessageParams) => {
    context.onMessage(params.type === 1 ? "error" : params.type === 2 ? "warning" : "info", params.message);
  });
  return client;
}

function options(context: ClientContext): LanguageClientOptions {
  const trace = tracing(context.log);
  return {
    documentSelector: [{ scheme: "file" }, { scheme: "untitled" }],
    outputChannel: context.log,
    ...(trace === undefined ? {} : { traceOutputChannel: trace }),
    initializationOptions: () => ({
      trusted: workspace.isTrusted,
      showsProblems: true,
      userSettings: users(configuration(), context.keys),
      switches: context.switches.state(),
      clientCommands: [...Object.values(Command), ...Object.values(ClientCommand)].filter(
        (command) => command !== Command.DID_ACCEPT,
      ),
    }),
    initializationFailedHandler: () => false,
    errorHandler: {
      error: (_error, _message, count) => ({
        action: (count ?? 0) <= 3 ? ErrorAction.Continue : ErrorAction.Shutdown,
        handled: true,
      }),
      closed: () => {
        context.onEnded();
        return { action: CloseAction.DoNotRestart, handled: true };
      },
    },
    stdioOptions: {
      stdout: () => undefined,
      stderr: (input) => {
        logStderr(input, context.log);
      },
    },
    middleware: middleware(context),
  };
}

function middleware(context: ClientContext): Middleware {
  return {
    async provideInlineCompletionItems(document, position, inline, token, next) {
      const invoked = inline.triggerKind === InlineCompletionTriggerKind.Invoke;
      if (!invoked && (isSelecting(document) || isOff(document, context))) return undefined;
      const answer = await next(document, position, inline, token);
      const items = Array.isArray(answer) ? answer : (answer?.items ?? []);
      if (!token.isCancellationRequested) context.onAnswered(document.uri.toString(), items.length, invoked);
      return answer;
    },
    workspace: {
      configuration: (params, token, next) => {
        if (params.items.some((item) => item.section !== SECTION)) return next(params, token);
        context.onPulled();
        return params.items.map((item) => explicit(configuration(item.scopeUri), context.keys));
      },
    },
  };
}

/** With a selection or several cursors ghost text is in the way. */
function isSelecting(document: TextDocument): boolean {
  const editor = window.activeTextEditor;
  return editor?.document === document && (editor.selections.length > 1 || !editor.selection.isEmpty);
}

function isOff(document: TextDocument, context: ClientContext): boolean {
  const map = workspace.getConfiguration(SECTION, document).get<Record<string, boolean>>("enable", {});
  return !enabledFor(map, document.languageId) && !context.switches.isOn(document.uri.toString());
}

function configuration(scope?: string) {
  const resource = workspace.workspaceFolders?.find((folder) => folder.uri.toString() === scope)?.uri;
  return workspace.getConfiguration(SECTION, resource);
}

/** The client traces only into a channel of level Trace; c2l.trace.server alone shall be enough. */
function tracing(log: LogOutputChannel): LogOutputChannel | undefined {
  if (workspace.getConfiguration(SECTION).get("trace.server") === "off") return undefined;
  return new Proxy(log, {
    get(target, name) {
      if (name === "logLevel") return LogLevel.Trace;
      const wanted = name === "trace" ? "info" : name;
      const value: unknown = Reflect.get(target, wanted);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

function logStderr(input: Readable, log: LogOutputChannel): void {
  createInterface({ input }).on("line", (line) => {
    const [, level, text] = /^(DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)$/.exec(line) ?? [];
    if (level === "WARNING") log.warn(text ?? line);
    else if (level === "ERROR" || level === "CRITICAL") log.error(text ?? line);
    else log.info(line);
  });
}
