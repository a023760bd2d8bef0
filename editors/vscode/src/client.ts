/** The language client of one server process: initialization options, notifications, middleware, logging. */

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
import { SELECTOR } from "./documents";
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
  /** `window/showMessage`: a message that carries no problem code. */
  onMessage(level: Level, sentence: string): void;
  /** The server process exited on its own. */
  onExit(): void;
  /** The server requested its settings. */
  onSettingsRequested(): void;
  /** A completion request for document `uri` returned this many items. */
  onCompletionsAnswered(uri: string, items: number, invoked: boolean): void;
}

/** A language client that shows no notifications of its own; the extension shows them. */
class SilentClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

/** `serve` starts the server process. */
export function createClient(serve: () => Promise<ChildProcess>, context: ClientContext): LanguageClient {
  const client = new SilentClient(SECTION, "C2L", serve, options(context));
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
    documentSelector: SELECTOR,
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
        context.onExit();
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
      const result = await next(document, position, inline, token);
      const items = Array.isArray(result) ? result : (result?.items ?? []);
      if (!token.isCancellationRequested) context.onCompletionsAnswered(document.uri.toString(), items.length, invoked);
      return result;
    },
    workspace: {
      configuration: (params, token, next) => {
        if (params.items.some((item) => item.section !== SECTION)) return next(params, token);
        context.onSettingsRequested();
        return params.items.map((item) => explicit(configuration(item.scopeUri), context.keys));
      },
    },
  };
}

/** Ghost text is not requested while there is a selection or more than one cursor. */
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

/**
 * Returns the channel for protocol traces. The client writes traces only if the channel's level is Trace; the proxy makes
 * c2l.trace.server sufficient.
 */
function tracing(log: LogOutputChannel): LogOutputChannel | undefined {
  if (workspace.getConfiguration(SECTION).get("trace.server") === "off") return undefined;
  return new Proxy(log, {
    get(target, name) {
      if (name === "logLevel") return LogLevel.Trace;
      const method = name === "trace" ? "info" : name;
      const value: unknown = Reflect.get(target, method);
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
