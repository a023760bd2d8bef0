--- What the server last said about itself, and what that means for a buffer. Events and the statusline come from here.
local protocol = require('c2l.protocol')

local M = {}

local LABEL = { -- what the statusline shows for a state
  stopped = 'off',
  starting = 'starting',
  loading = 'loading',
  indexing = 'indexing',
  ready = 'ready',
  updating = 'learning',
  degraded = 'warning',
  failed = 'failed',
  disabled = 'off',
  unloaded = 'asleep',
}

-- Reasons that hold for a whole buffer, and what the statusline shows for them.
local OFF = {
  [protocol.Reason.OFF] = 'off',
  [protocol.Reason.SNOOZED] = 'snoozed',
  [protocol.Reason.LANGUAGE] = 'off',
  [protocol.Reason.BUFFER] = 'off',
  [protocol.Reason.LEFT_OUT] = 'off',
  [protocol.Reason.MANUAL] = 'manual',
}

local LEVELS = { error = vim.log.levels.ERROR, warning = vim.log.levels.WARN, info = vim.log.levels.INFO }
local FIXES = { -- by the code of a problem, what one can do about it
  [protocol.ErrorCode.SETTING] = 'See :help c2l-settings.',
  [protocol.ErrorCode.MODEL] = ':C2L model select chooses another.',
  [protocol.ErrorCode.ENGINE] = ':C2L restart starts it again.',
  [protocol.ErrorCode.WIRE] = ':C2L restart starts it again.',
}

---@type table<integer, string> why a buffer gets nothing, as the server said last
local reasons = {}
---@type table<integer, c2l.Status> by client
local last = {}
---@type table<string, c2l.AdapterStatus> by folder
local adapters = {}
---@type string? why no server is started any more
local surrender

---@param pattern string
---@param data table
function M.event(pattern, data)
  vim.api.nvim_exec_autocmds('User', { pattern = pattern, modeline = false, data = data })
end

local function redraw()
  M.event('C2lStatus', M.get())
  vim.cmd.redrawstatus({ bang = true })
end

--- `c2l/didChangeStatus`.
---@param client_id integer
---@param status c2l.Status
function M.changed(client_id, status)
  local before = last[client_id]
  last[client_id], surrender = status, nil
  if status.adapter then
    adapters[status.adapter.folder] = status.adapter
  end
  redraw()
  for _, win in ipairs(vim.api.nvim_list_wins()) do
    M.refresh(vim.api.nvim_win_get_buf(win))
  end
  require('c2l.suggest').status_changed(before and before.state, status.state)
end

--- `c2l/adapter/didChange`.
---@param change c2l.AdapterChange
function M.adapter_changed(change)
  adapters[change.folder] = change.adapter
  M.event('C2lAdapter', change)
  redraw()
end

--- `c2l/problem`: told once by the server, here with what one can do about it.
---@param problem c2l.Problem
function M.problem(problem)
  local fix = FIXES[problem.code] or ':C2L status says more.'
  vim.notify(('c2l: %s %s'):format(problem.message, fix), LEVELS[problem.severity] or LEVELS.warning)
end

--- The server of a client has ended.
---@param client_id integer
function M.ended(client_id)
  last[client_id] = nil
  redraw()
end

--- No server will be started again until the user asks.
---@param message string
function M.gave_up(message)
  surrender = message
  vim.notify('c2l: ' .. message, vim.log.levels.ERROR)
  redraw()
end

local function folder_of(buf)
  local name, best = vim.api.nvim_buf_get_name(buf), nil
  for folder in pairs(adapters) do
    if vim.startswith(name, folder .. '/') and #folder > #(best or '') then
      best = folder
    end
  end
  return best and adapters[best]
end

--- The status as last heard, for a buffer. `disabledReason` is set where no automatic suggestion would come.
---@param buf? integer
---@return c2l.Status
function M.get(buf)
  buf = (buf == nil or buf == 0) and vim.api.nvim_get_current_buf() or buf --[[@as integer]]
  local clients = require('c2l.client')
  local client = clients.get(buf)
  local on, reason = require('c2l.switch').enabled(buf)
  local status ---@type c2l.Status
  if client and last[client.id] then
    status = vim.tbl_extend('force', {}, last[client.id])
    status.adapter = folder_of(buf) or status.adapter
  elseif client or clients.starting() then
    status = { kind = 'Normal', busy = true, state = 'starting', message = 'The server is starting.' }
  else
    local message = surrender or 'No server is attached to this buffer.'
    status = { kind = surrender and 'Error' or 'Inactive', busy = false, state = 'stopped', message = message }
  end
  status.disabledReason = not on and reason or status.disabledReason or reasons[buf]
  return status
end

--- Ask the server why a buffer gets nothing: settings and language decide that, too.
---@param buf integer
function M.refresh(buf)
  local clients = require('c2l.client')
  local client = clients.get(buf)
  if not client then
    reasons[buf] = nil
    return
  end
  local params = { textDocument = { uri = vim.uri_from_bufnr(buf) } }
  clients.request(client, protocol.Method.STATUS, params, function(err, status)
    local reason = not err and OFF[status.disabledReason] and status.disabledReason or nil
    if reason ~= reasons[buf] then
      reasons[buf] = reason
      redraw()
    end
  end, buf)
end

--- Ask the server, which also knows what depends on settings and language.
---@param buf integer
---@param reply fun(status: c2l.Status)
function M.ask(buf, reply)
  local clients = require('c2l.client')
  local client = clients.get(buf)
  if not client then
    return reply(M.get(buf))
  end
  local params = { textDocument = { uri = vim.uri_from_bufnr(buf) } }
  clients.request(client, protocol.Method.STATUS, params, function(err, status)
    status = not err and status or M.get(buf)
    status.disabledReason = M.get(buf).disabledReason or status.disabledReason
    reply(status)
  end, buf)
end

--- Why the last request for a buffer got nothing, as a sentence; nil if it got something or nobody knows.
---@param buf integer
---@param reply fun(sentence?: string)
function M.why(buf, reply)
  local clients = require('c2l.client')
  local client = clients.get(buf)
  if not client then
    return reply(nil)
  end
  local here = { textDocument = { uri = vim.uri_from_bufnr(buf) } }
  clients.execute(client, protocol.Command.SHOW_REPORT, { here }, function(err, found)
    reply(not err and found and found.lastReason and found.lastReason.message or nil)
  end)
end

--- For a statusline: `C2L ready #3`, `C2L off`, `C2L manual #3`, `C2L learning #3 +2`.
---@param buf? integer
---@return string
function M.line(buf)
  local status = M.get(buf)
  local off = OFF[status.disabledReason]
  local label = off or LABEL[status.state] or status.state
  local parts = { 'C2L', label }
  local adapter = status.adapter
  if adapter and (not off or label == OFF[protocol.Reason.MANUAL]) and (adapter.generation or 0) > 0 then
    table.insert(parts, (adapter.enabled == false and 'base' or '#' .. adapter.generation))
    if (adapter.pendingFiles or 0) > 0 then
      table.insert(parts, '+' .. adapter.pendingFiles)
    end
  end
  return (table.concat(parts, ' '):gsub('%%', '%%%%'))
end

return M
