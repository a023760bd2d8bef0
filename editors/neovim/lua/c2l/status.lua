--- The last status of each server, and what it means for a buffer. Sends the User events and renders the statusline.
local protocol = require('c2l.protocol')

local M = {}

local LABEL = { -- text of a state in the statusline
  stopped = 'off',
  starting = 'starting',
  loading = 'loading',
  indexing = 'indexing',
  ready = 'ready',
  updating = 'updating',
  degraded = 'warning',
  failed = 'failed',
  disabled = 'off',
  unloaded = 'unloaded',
}

-- Reasons that apply to a whole buffer, with their text in the statusline.
local OFF = {
  [protocol.Reason.OFF] = 'off',
  [protocol.Reason.SNOOZED] = 'snoozed',
  [protocol.Reason.LANGUAGE] = 'off',
  [protocol.Reason.BUFFER] = 'off',
  [protocol.Reason.LEFT_OUT] = 'off',
  [protocol.Reason.MANUAL] = 'manual',
}

local LEVELS = { error = vim.log.levels.ERROR, warning = vim.log.levels.WARN, info = vim.log.levels.INFO }
local FIXES = { -- advice by the code of a problem
  [protocol.ErrorCode.SETTING] = 'See :help c2l-settings.',
  [protocol.ErrorCode.MODEL] = 'Use :C2L model select to choose another model.',
  [protocol.ErrorCode.ENGINE] = ':C2L restart starts it again.',
  [protocol.ErrorCode.WIRE] = ':C2L restart starts it again.',
}

---@type table<integer, string> by buffer: the last reported reason why it gets no suggestions
local reasons = {}
---@type table<integer, c2l.Status> last status by client
local last = {}
---@type table<string, c2l.AdapterStatus> last adapter status by folder
local adapters = {}
---@type string? why the server is not restarted any more
local failure

---@param pattern string
---@param data table
function M.event(pattern, data)
  vim.api.nvim_exec_autocmds('User', { pattern = pattern, modeline = false, data = data })
end

local function redraw()
  M.event('C2lStatus', M.get())
  vim.cmd.redrawstatus({ bang = true })
end

--- Handle `c2l/didChangeStatus`.
---@param client_id integer
---@param status c2l.Status
function M.changed(client_id, status)
  local before = last[client_id]
  last[client_id], failure = status, nil
  if status.adapter then
    adapters[status.adapter.folder] = status.adapter
  end
  redraw()
  for _, win in ipairs(vim.api.nvim_list_wins()) do
    M.refresh(vim.api.nvim_win_get_buf(win))
  end
  require('c2l.suggest').status_changed(before and before.state, status.state)
end

--- Handle `c2l/adapter/didChange`.
---@param change c2l.AdapterChange
function M.adapter_changed(change)
  adapters[change.folder] = change.adapter
  M.event('C2lAdapter', change)
  redraw()
end

--- Handle `c2l/problem`: show it with advice.
---@param problem c2l.Problem
function M.problem(problem)
  local fix = FIXES[problem.code] or 'See :C2L status.'
  vim.notify(('c2l: %s %s'):format(problem.message, fix), LEVELS[problem.severity] or LEVELS.warning)
end

--- The server of a client has exited.
---@param client_id integer
function M.ended(client_id)
  last[client_id] = nil
  redraw()
end

--- Report that the server is not restarted until the user requests it.
---@param message string
function M.gave_up(message)
  failure = message
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

--- Returns the last status, for a buffer. `disabledReason` is set if the buffer gets no automatic suggestions.
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
    local message = failure or 'No server is attached to this buffer.'
    status = { kind = failure and 'Error' or 'Inactive', busy = false, state = 'stopped', message = message }
  end
  status.disabledReason = not on and reason or status.disabledReason or reasons[buf]
  return status
end

--- Request the reason why a buffer gets no suggestions, which also depends on settings and language.
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

--- Request the current status for a buffer, including reasons that depend on settings and language.
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

--- Request why the last request for a buffer returned nothing: a sentence, or nil if it returned something or failed.
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

--- Returns the text for a statusline: `C2L ready #3`, `C2L off`, `C2L manual #3`, `C2L updating #3 +2`.
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
