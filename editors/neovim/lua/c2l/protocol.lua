--- The editor contract: every name and payload beyond standard LSP that Neovim and the server exchange.
--- Generated from c2l_lsp/server/transport/protocol.py by generate.py; a test compares the two.
local M = {}

M.SECTION = 'c2l'
M.DID_CHANGE_STATUS = 'c2l/didChangeStatus'
M.ADAPTER_DID_CHANGE = 'c2l/adapter/didChange'
M.PROBLEM = 'c2l/problem'
M.DID_CHANGE_TRUST = 'c2l/didChangeTrust'

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
  STARTING = 'starting',
  FAILED = 'failed',
  TIMEOUT = 'timeout',
  ENGINE = 'engine',
  LEFT_OUT = 'left-out',
  UNSURE = 'unsure',
  EMPTY = 'empty',
}
M.SENTENCES = {
  off = 'Completions are off in this workspace. c2l.toggle turns them on.',
  snoozed = 'Completions are snoozed.',
  language = 'Completions are off for this language (c2l.enable, c2l.toggleLanguage).',
  buffer = 'Completions are off in this file (c2l.toggle).',
  manual = 'Completions are shown only on request (c2l.completion.trigger is manual).',
  comment = 'Completions are off inside comments (c2l.completion.inComments).',
  ['line-suffix'] = 'Too much text follows the cursor on its line (c2l.completion.maxLineSuffix).',
  ['min-chars'] = 'Too little text stands before the cursor on its line (c2l.completion.minChars).',
  ['no-document'] = 'The editor has not opened this document.',
  starting = 'The model is still loading.',
  failed = 'The engine is not running. c2l.restartServer starts it again.',
  timeout = 'The engine did not answer in time.',
  engine = 'The engine refused the request.',
  ['left-out'] = 'This file is left out: it is ignored (.gitignore, .c2lignore, c2l.files) or named like a secret.',
  unsure = 'The model is not sure enough of anything here (c2l.completion.minConfidence). Asked, it guesses.',
  empty = 'The model had nothing to suggest here.',
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
M.MACHINE_GROUPS = { 'model', 'remote', 'server' }

--- Settings that limit which files are read; a workspace may only make them stricter.
M.TIGHTENED = { 'files.exclude', 'files.respectGitignore', 'files.ignoreFile', 'files.maxSizeKb', 'adapter.maxIndexKb' }

--- Time of recent completions as the editor saw them, in ms.
---@class c2l.Latency
---@field p50? number
---@field p95? number

--- One folder's adapter. `updatedAt` is seconds since the epoch, 0 before the first; `scale` 0: it has no effect.
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

--- `c2l/didChangeStatus`, and the answer to `c2l/status` (there with `folders`, and a reason for one document).
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

--- `c2l/adapter/didChange`. `paths`: the largest changed files; `moved`: relative distance from the one before.
---@class c2l.AdapterChange
---@field folder string
---@field generation integer
---@field trigger string
---@field changedFiles integer
---@field ms table<string, number>
---@field adapter c2l.AdapterStatus
---@field paths? string[]
---@field moved? number

--- Which folder a request is about: a folder's URI or path, else the one of the document, else the first.
---@class c2l.FolderParams
---@field folder? string
---@field textDocument? { uri: string }

--- `enabled` None flips.
---@class c2l.SetEnabledParams
---@field folder? string
---@field textDocument? { uri: string }
---@field enabled? boolean

--- `out`: directory to write; `rank` 0 is the smallest exact one.
---@class c2l.ExportParams
---@field folder? string
---@field textDocument? { uri: string }
---@field out? string
---@field rank? integer

--- `cancel`: stop the training that runs; `steps` 0 chooses their number.
---@class c2l.DeepenParams
---@field folder? string
---@field textDocument? { uri: string }
---@field cancel? boolean
---@field steps? integer

--- Id of a completion, as in the arguments of its command.
---@class c2l.ExplainParams
---@field id string

--- `chars`: how many characters (code points) were inserted, 0: all that was left; `partly`: some are left still.
---@class c2l.AcceptParams
---@field id string
---@field chars? integer
---@field partly? boolean

--- `reset` starts counting anew after the answer.
---@class c2l.StatisticsParams
---@field reset? boolean

--- `uri`: one document; `language`: one language; neither: everything. `enabled` None flips.
---@class c2l.ToggleParams
---@field uri? string
---@field language? string
---@field enabled? boolean

--- `c2l/problem`. `code` is the error's; `setting` the key to correct, in `file` or in the editor's settings.
---@class c2l.Problem
---@field severity string
---@field code string
---@field message string
---@field setting? string
---@field file? string

--- `initializationOptions.switches`: what the user turned on or off while a former server ran.
---@class c2l.Switched
---@field off? boolean
---@field documents? table<string, boolean>
---@field languages? table<string, boolean>
---@field snoozedUntil? number
---@field adaptersOff? string[]

return M
