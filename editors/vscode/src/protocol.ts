/**
 * The editor contract: every name and payload beyond standard LSP that this extension and the server exchange.
 *
 * The server's side is c2l_lsp/server/transport/protocol.py. tests/editors/vscode/test_contract.py compares both files,
 * so the names in the tables are spelled as in Python.
 */

export const SECTION = "c2l";

/** Commands of `workspace/executeCommand`. This extension registers all but DID_ACCEPT under the same name. */
export const Command = {
  DID_ACCEPT: "c2l.didAcceptCompletion",
  TOGGLE: "c2l.toggle",
  TOGGLE_LANGUAGE: "c2l.toggleLanguage",
  SNOOZE: "c2l.snooze",
  SHOW_STATUS: "c2l.showStatus",
  SHOW_STATISTICS: "c2l.showStatistics",
  SHOW_REPORT: "c2l.showReport",
  REGENERATE_ADAPTER: "c2l.regenerateAdapter",
  RESET_ADAPTER: "c2l.resetAdapter",
  EXPORT_ADAPTER: "c2l.exportAdapter",
  DEEPEN_ADAPTER: "c2l.deepenAdapter",
  TOGGLE_ADAPTER: "c2l.toggleAdapter",
  UNLOAD_MODEL: "c2l.unloadModel",
  RESTART_SERVER: "c2l.restartServer",
} as const;

/** Commands that only the extension implements. */
export const ClientCommand = {
  TRIGGER_COMPLETION: "c2l.triggerCompletion",
  SHOW_MENU: "c2l.showMenu",
  SELECT_MODEL: "c2l.selectModel",
  SHOW_LOGS: "c2l.showLogs",
} as const;

export const Method = {
  STATUS: "c2l/status",
  STATISTICS: "c2l/statistics",
  EXPLAIN: "c2l/explain",
  ADAPTER_INFO: "c2l/adapter/info",
  ADAPTER_REGENERATE: "c2l/adapter/regenerate",
  ADAPTER_RESET: "c2l/adapter/reset",
  ADAPTER_EXPORT: "c2l/adapter/export",
  ADAPTER_DEEPEN: "c2l/adapter/deepen",
  ADAPTER_SET_ENABLED: "c2l/adapter/setEnabled",
  MODEL_LOAD: "c2l/model/load",
  MODEL_UNLOAD: "c2l/model/unload",
} as const;

export const DID_CHANGE_STATUS = "c2l/didChangeStatus";
export const ADAPTER_DID_CHANGE = "c2l/adapter/didChange";
export const PROBLEM = "c2l/problem";
export const DID_CHANGE_TRUST = "c2l/didChangeTrust";
export const DID_MOVE_CURSOR = "c2l/didMoveCursor";

/** State of the server: the values of `Status.state`. */
export const State = {
  STARTING: "starting",
  LOADING: "loading",
  INDEXING: "indexing",
  READY: "ready",
  UPDATING: "updating",
  DEGRADED: "degraded",
  FAILED: "failed",
  DISABLED: "disabled",
  UNLOADED: "unloaded",
} as const;
export type State = (typeof State)[keyof typeof State];

/** Why there is no completion. The values of `disabledReason` and `lastReason`. */
export const Reason = {
  OFF: "off",
  SNOOZED: "snoozed",
  LANGUAGE: "language",
  BUFFER: "buffer",
  MANUAL: "manual",
  COMMENT: "comment",
  LINE_SUFFIX: "line-suffix",
  MIN_CHARS: "min-chars",
  NO_DOCUMENT: "no-document",
  OUT_OF_STEP: "out-of-step",
  STARTING: "starting",
  FAILED: "failed",
  TIMEOUT: "timeout",
  ENGINE: "engine",
  LEFT_OUT: "left-out",
  UNSURE: "unsure",
  EMPTY: "empty",
} as const;
export type Reason = (typeof Reason)[keyof typeof Reason];

export const SENTENCES: Record<Reason, string> = {
  [Reason.OFF]: "Completions are turned off. Run c2l.toggle to turn them on.",
  [Reason.SNOOZED]: "Completions are snoozed. c2l.triggerCompletion still shows one.",
  [Reason.LANGUAGE]: "Completions are turned off for this language. Run c2l.toggleLanguage or change c2l.enable.",
  [Reason.BUFFER]: "Completions are turned off in this file. Run c2l.toggle to turn them on.",
  [Reason.MANUAL]: "Automatic completions are turned off (c2l.completion.trigger). c2l.triggerCompletion shows one.",
  [Reason.COMMENT]: "Automatic completions are turned off in comments (c2l.completion.inComments).",
  [Reason.LINE_SUFFIX]: "Too much text follows the cursor on its line (c2l.completion.maxLineSuffix).",
  [Reason.MIN_CHARS]: "Too little text precedes the cursor on its line (c2l.completion.minChars).",
  [Reason.NO_DOCUMENT]: "The editor has not opened this file in the language server.",
  [Reason.OUT_OF_STEP]: "The editor sent a change of this file that the server could not read. Close the file and open it again.",
  [Reason.STARTING]: "The model is still loading. Completions start when it is ready.",
  [Reason.FAILED]: "The engine is not running. Run c2l.restartServer to start it again.",
  [Reason.TIMEOUT]: "The engine did not answer in time. Try again.",
  [Reason.ENGINE]: "The engine could not process the request. c2l.showLogs shows why.",
  [Reason.LEFT_OUT]: "This file is excluded by .gitignore, .c2lignore or c2l.files, or its name looks like a secret.",
  [Reason.UNSURE]: "The model's best guess is too uncertain to show (c2l.completion.minConfidence). c2l.triggerCompletion shows it.",
  [Reason.EMPTY]: "The model has no suggestion here.",
};

/** Values of a problem's `code`. */
export const ErrorCode = {
  SETTING: "setting",
  FOLDER: "folder",
  NOTHING_TO_LEARN: "nothing-to-learn",
  GIT: "git",
  MODEL: "model",
  ADAPTER: "adapter",
  CHECKPOINT: "checkpoint",
  STATE: "state",
  STORAGE: "storage",
  ENGINE: "engine",
  WIRE: "wire",
  CORPUS: "corpus",
  TRAINING: "training",
  REQUEST: "request",
  CANCELLED: "cancelled",
} as const;

/**
 * `c2l/problem`. `setting`: key of the setting to correct, or empty. `file`: the file that contains it, or empty if it is in
 * VS Code's settings.
 */
export interface Problem {
  severity: string;
  code: string;
  message: string;
  setting: string;
  file: string;
}

/** Median and 95th percentile, in ms. */
export interface Latency {
  p50: number;
  p95: number;
}

/** One folder's adapter. `updatedAt`: seconds since the epoch, 0 before the first. `scale` 0: the adapter is not used. */
export interface AdapterStatus {
  folder: string;
  generation: number;
  pendingFiles: number;
  updatedAt: number;
  enabled: boolean;
  kind: string;
  state: string;
  files: number;
  scale: number;
  message: string;
  /** Progress or result of fine-tuning; empty if it was never requested. */
  deep: string;
}

/** `c2l/didChangeStatus`, and the result of `c2l/status`. */
export interface Status {
  kind: string;
  busy: boolean;
  message: string;
  state: State;
  model: string | null;
  device: string;
  adapter: AdapterStatus | null;
  latencyMs: Latency;
  disabledReason?: string;
  lastReason?: string;
  folders?: AdapterStatus[];
  memoryMb?: number;
}

/** `c2l/adapter/didChange`. `paths`: the largest changed files. `moved`: relative distance to the previous adapter. */
export interface AdapterChange {
  folder: string;
  generation: number;
  trigger: string;
  changedFiles: number;
  ms: Record<string, number>;
  adapter: AdapterStatus;
  paths: string[];
  moved: number;
}

export interface DocumentId {
  uri: string;
}

/** The folder of a request: `folder` (URI or path), else the document's folder, else the first folder. */
export interface FolderParams {
  folder?: string | null;
  textDocument?: DocumentId | null;
}

/** Without `enabled`, the state is toggled. */
export interface SetEnabledParams extends FolderParams {
  enabled?: boolean | null;
}

/** `out`: directory to write. `rank` 0: the smallest rank that is exact. */
export interface ExportParams extends FolderParams {
  out?: string;
  rank?: number;
}

export interface DeepenParams extends FolderParams {
  cancel?: boolean;
  steps?: number;
}

export interface ExplainParams {
  id: string;
}

/** `chars`: inserted characters, 0 for all that remained. `partly`: some characters remain. */
export interface AcceptParams extends ExplainParams {
  chars?: number;
  partly?: boolean;
}

/** `reset`: set all counts to zero after the result was computed. */
export interface StatisticsParams {
  reset?: boolean;
}

/** `uri`: one document. `language`: one language. Neither: all. Without `enabled`, the state is toggled. */
export interface ToggleParams {
  uri?: string | null;
  language?: string | null;
  enabled?: boolean | null;
}

/** LSP's Position, in the negotiated encoding. */
export interface Position {
  line: number;
  character: number;
}

/** Parameters of `c2l/didMoveCursor`. */
export interface CursorParams {
  textDocument: DocumentId;
  position: Position;
}

/** `initializationOptions.switches`: what the user turned on or off before this server started. */
export interface Switched {
  off?: boolean;
  documents?: Record<string, boolean>;
  languages?: Record<string, boolean>;
  snoozedUntil?: number;
  adaptersOff?: string[];
}

export interface TrustParams {
  trusted: boolean;
}

/** Counts of completions. A shown completion that was not accepted, not even partly, counts as rejected. */
export interface Counts {
  shown: number;
  accepted: number;
  partlyAccepted: number;
  acceptedChars: number;
  shownChars: number;
}

/** Accepted characters of one week, that is, saved keystrokes. */
export interface Week {
  withAdapter: number;
  withoutAdapter: number;
}

/** All counts. `reasons`: requests without a completion, by reason. `weeks`: by ISO week. */
export interface Totals {
  withAdapter: Counts;
  withoutAdapter: Counts;
  requests: number;
  fromCache: number;
  typedThrough: number;
  superseded: number;
  reasons: Record<string, number>;
  weeks: Record<string, Week>;
}

/** Latency of the last `count` completions, in ms. */
export type Timed = Latency & { count: number };

/** Result of `c2l/statistics`. */
export interface StatisticsReport extends Totals {
  enabled: boolean;
  latencyMs: Timed;
  latencyMsWithAdapter: Timed;
  latencyMsWithoutAdapter: Timed;
}

/** Result of `c2l/adapter/info`. */
export interface AdapterInfo extends AdapterStatus {
  norm: number;
  rank: number;
  /** Number of tokens in the folder's kNN memory. */
  recalled: number;
  /** How many of them have a neural key. */
  keyed: number;
}

/** Result of `c2l/adapter/export`. `error`: relative error of the written ΔW. */
export interface Exported {
  out: string;
  rank: number;
  error: number;
  generation: number;
}
