--- The editor contract: every name and payload beyond standard LSP that Neovim and the server exchange.
--- Generated from c2l_lsp/server/transport/protocol.py by generate.py; a test compares the two.
local M = {}

M.SECTION = 'c2l'
M.DID_CHANGE_STATUS = 'c2l/didChangeStatus'
M.ADAPTER_DID_CHANGE = 'c2l/adapter/didChange'
M.PROBLEM = 'c2l/problem'
M.DID_CHANGE_TRUST = 'c2l/didChangeTrust'
M.DID_MOVE_CURSOR = 'c2l/didMoveCursor'

--- Commands of `workspace/executeCommand`.
M.Command = {
  DID_ACCEPT = 'c2l.didAcceptCompletion',
  TOGGLE = 'c2l.toggle',
  TOGGLE_LANGUAGE = 'c2l.toggleLanguage',
  SNOOZE = 'c2l.snooze',
  SHOW_STATUS = 'c2l.showStatus',
  SHOW_STATISTICS = 'c2l.showStatistics',
  SHOW_REPORT = 'c2l.showReport',
  REGENERATE_ADAPTER = 'c2l.regenerateAdapter',
  RESET_ADAPTER = 'c2l.resetAdapter',
  EXPORT_ADAPTER = 'c2l.exportAdapter',
  DEEPEN_ADAPTER = 'c2l.deepenAdapter',
  TOGGLE_ADAPTER = 'c2l.toggleAdapter',
  UNLOAD_MODEL = 'c2l.unloadModel',
  RESTART_SERVER = 'c2l.restartServer',
}

--- Commands that only an editor implements.
M.CLIENT_COMMANDS = { 'c2l.triggerCompletion', 'c2l.showMenu', 'c2l.selectModel', 'c2l.showLogs' }

--- Requests beyond standard LSP.
M.Method = {
  STATUS = 'c2l/status',
  STATISTICS = 'c2l/statistics',
  EXPLAIN = 'c2l/explain',
  ADAPTER_INFO = 'c2l/adapter/info',
  ADAPTER_REGENERATE = 'c2l/adapter/regenerate',
  ADAPTER_RESET = 'c2l/adapter/reset',
  ADAPTER_EXPORT = 'c2l/adapter/export',
  ADAPTER_DEEPEN = 'c2l/adapter/deepen',
  ADAPTER_SET_ENABLED = 'c2l/adapter/setEnabled',
  MODEL_LOAD = 'c2l/model/load',
  MODEL_UNLOAD = 'c2l/model/unload',
}

--- State of the server: the values of `Status.state`.
M.State = {
  STARTING = 'starting',
  LOADING = 'loading',
  INDEXING = 'indexing',
  READY = 'ready',
  UPDATING = 'updating',
  DEGRADED = 'degraded',
  FAILED = 'failed',
  DISABLED = 'disabled',
  UNLOADED = 'unloaded',
}

--- Why there is no completion, and the sentences for users.
M.Reason = {
  OFF = 'off',
  SNOOZED = 'snoozed',
  LANGUAGE = 'language',
  BUFFER = 'buffer',
  MANUAL = 'manual',
  COMMENT = 'comment',
  LINE_SUFFIX = 'line-suffix',
  MIN_CHARS = 'min-chars',
  NO_DOCUMENT = 'no-document',
  OUT_OF_STEP = 'out-of-step',
  STARTING = 'starting',
  FAILED = 'failed',
  TIMEOUT = 'timeout',
  ENGINE = 'engine',
  LEFT_OUT = 'left-out',
  UNSURE = 'unsure',
  EMPTY = 'empty',
}
M.SENTENCES = {
  off = 'Completions are turned off. Run c2l.toggle to turn them on.',
  snoozed = 'Completions are snoozed. c2l.triggerCompletion still shows one.',
  language = 'Completions are turned off for this language. Run c2l.toggleLanguage or change c2l.enable.',
  buffer = 'Completions are turned off in this file. Run c2l.toggle to turn them on.',
  manual = 'Automatic completions are turned off (c2l.completion.trigger). c2l.triggerCompletion shows one.',
  comment = 'Automatic completions are turned off in comments (c2l.completion.inComments).',
  ['line-suffix'] = 'Too much text follows the cursor on its line (c2l.completion.maxLineSuffix).',
  ['min-chars'] = 'Too little text precedes the cursor on its line (c2l.completion.minChars).',
  ['no-document'] = 'The editor has not opened this file in the language server.',
  ['out-of-step'] = 'The editor sent a change of this file that the server could not read. Close the file and open it again.',
  starting = 'The model is still loading. Completions start when it is ready.',
  failed = 'The engine is not running. Run c2l.restartServer to start it again.',
  timeout = 'The engine did not answer in time. Try again.',
  engine = 'The engine could not process the request. c2l.showLogs shows why.',
  ['left-out'] = 'This file is excluded by .gitignore, .c2lignore or c2l.files, or its name looks like a secret.',
  unsure = 'The model\'s best guess is too uncertain to show (c2l.completion.minConfidence). c2l.triggerCompletion shows it.',
  empty = 'The model has no suggestion here.',
}

--- Values of a problem's `code`.
M.ErrorCode = {
  SETTING = 'setting',
  FOLDER = 'folder',
  NOTHING_TO_LEARN = 'nothing-to-learn',
  GIT = 'git',
  MODEL = 'model',
  ADAPTER = 'adapter',
  CHECKPOINT = 'checkpoint',
  STATE = 'state',
  STORAGE = 'storage',
  ENGINE = 'engine',
  WIRE = 'wire',
  CORPUS = 'corpus',
  TRAINING = 'training',
  REQUEST = 'request',
  CANCELLED = 'cancelled',
}

--- Groups of settings that only the user may set.
M.MACHINE_GROUPS = { 'model', 'remote', 'server', 'trace' }

--- Settings that limit what is read and stored; a workspace may only make them stricter.
M.TIGHTENED = { 'followUp.enable', 'adapter.enable', 'adapter.hypernetwork', 'adapter.includeUnsaved', 'adapter.useGitHistory', 'adapter.historyCommits', 'adapter.maxIndexKb', 'files.exclude', 'files.respectGitignore', 'files.ignoreFile', 'files.maxSizeKb', 'files.languages', 'statistics.enable' }

--- Percentiles of the latency of recent completions, in ms.
---@class c2l.Latency
---@field p50? number
---@field p95? number

--- One folder's adapter.
---@class c2l.AdapterStatus
---@field folder string
---@field generation? integer
---@field pendingFiles? integer
---@field updatedAt? number
---@field enabled? boolean
---@field kind? string
---@field state? string
---@field files? integer
---@field scale? number
---@field message? string
---@field deep? string

--- `c2l/didChangeStatus`, and the result of `c2l/status`.
---@class c2l.Status
---@field kind string
---@field busy boolean
---@field message string
---@field state string
---@field model? string
---@field device? string
---@field adapter? c2l.AdapterStatus
---@field latencyMs? c2l.Latency
---@field disabledReason? string
---@field lastReason? string
---@field folders? c2l.AdapterStatus[]
---@field memoryMb? number

--- `c2l/adapter/didChange`: a new adapter generation is live.
---@class c2l.AdapterChange
---@field folder string
---@field generation integer
---@field trigger string
---@field changedFiles integer
---@field ms table<string, number>
---@field adapter c2l.AdapterStatus
---@field paths? string[]
---@field moved? number

--- The folder of a request: by URI or path, else the folder of the document, else the first folder.
---@class c2l.FolderParams
---@field folder? string
---@field textDocument? { uri: string }

--- Parameters of `c2l/adapter/setEnabled`. `enabled` None toggles.
---@class c2l.SetEnabledParams
---@field folder? string
---@field textDocument? { uri: string }
---@field enabled? boolean

--- Parameters of `c2l/adapter/export`. `out`: directory to write; `rank` 0: the smallest exact rank.
---@class c2l.ExportParams
---@field folder? string
---@field textDocument? { uri: string }
---@field out? string
---@field rank? integer

--- Parameters of `c2l/adapter/deepen`. `cancel`: stop running training; `steps` 0: choose the number.
---@class c2l.DeepenParams
---@field folder? string
---@field textDocument? { uri: string }
---@field cancel? boolean
---@field steps? integer

--- Parameters of `c2l/explain`. `id`: a completion's id, from the arguments of its command.
---@class c2l.ExplainParams
---@field id string

--- Parameters of `c2l.didAcceptCompletion`.
---@class c2l.AcceptParams
---@field id string
---@field chars? integer
---@field partly? boolean

--- Parameters of `c2l/statistics`. `reset`: set the counts to zero after this report.
---@class c2l.StatisticsParams
---@field reset? boolean

--- Parameters of the toggle commands: one document, one language or everything. `enabled` None toggles.
---@class c2l.ToggleParams
---@field uri? string
---@field language? string
---@field enabled? boolean

--- `c2l/problem`: an error for the user.
---@class c2l.Problem
---@field severity string
---@field code string
---@field message string
---@field setting? string
---@field file? string

--- `initializationOptions.switches`: what the user had turned on or off in the previous server process.
---@class c2l.Switched
---@field off? boolean
---@field documents? table<string, boolean>
---@field languages? table<string, boolean>
---@field snoozedUntil? number
---@field adaptersOff? string[]

return M
