--- Turns suggestions on or off, in all buffers or in one by `b:c2l_enabled`. The server is notified, so that its status
--- agrees, and a new server receives the same switches.
local client = require('c2l.client')
local protocol = require('c2l.protocol')

local M = {}

local everywhere = true
---@type table<integer, boolean> the value last sent to the server, by buffer
local sent = {}
---@type table<string, boolean> languages that were turned on or off
local languages = {}
---@type table<string, boolean> folders whose adapter is off
local adapters_off = {}
local snoozed_until = 0 -- seconds since the epoch; 0: not snoozed

---@param buf integer
---@return boolean?
local function of_buffer(buf)
  local value = vim.b[buf].c2l_enabled
  if value == nil then
    return nil
  end
  return value ~= false and value ~= 0
end

--- Returns whether suggestions are on for a buffer, by the switches in Neovim alone; if not, also the reason.
---@param buf integer
---@return boolean, string?
function M.enabled(buf)
  if not everywhere then
    return false, protocol.Reason.OFF
  elseif of_buffer(buf) == false then
    return false, protocol.Reason.BUFFER
  end
  return true
end

--- Send the value of `b:c2l_enabled` to the server if it has changed.
---@param buf integer
function M.sync(buf)
  local value, server = of_buffer(buf), client.get(buf)
  if value ~= nil and server and sent[buf] ~= value then
    sent[buf] = value
    client.execute(server, protocol.Command.TOGGLE, { { uri = vim.uri_from_bufnr(buf), enabled = value } })
  end
end

--- Send the buffer's switch to a server that attached to it. The server forgets it when the buffer is closed.
---@param buf integer
function M.attached(buf)
  sent[buf] = nil
  M.sync(buf)
end

--- Returns the switches for the initialization options of a new server.
---@return c2l.Switched
function M.state()
  local documents = vim.empty_dict()
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    local value = of_buffer(buf)
    if value ~= nil and vim.api.nvim_buf_is_loaded(buf) then
      documents[vim.uri_from_bufnr(buf)] = value
    end
  end
  return {
    off = not everywhere,
    documents = documents,
    languages = next(languages) and languages or vim.empty_dict(),
    snoozedUntil = snoozed_until,
    adaptersOff = vim.tbl_keys(adapters_off),
  }
end

--- Record that the server turned a language on or off.
---@param language string
---@param on boolean
function M.language(language, on) languages[language] = on end

--- Record the end of a snooze, in seconds since the epoch; 0: not snoozed.
---@param till number
function M.snoozed(till) snoozed_until = till end

--- Record that the server turned a folder's adapter on or off.
---@param folder string
---@param on boolean
function M.adapter(folder, on) adapters_off[folder] = not on or nil end

--- Turn suggestions on or off, in one buffer or in all.
---@param on boolean
---@param buf? integer
function M.set(on, buf)
  if buf then
    buf = buf == 0 and vim.api.nvim_get_current_buf() or buf
    vim.b[buf].c2l_enabled = on
    M.sync(buf)
  else
    everywhere = on
    for _, server in ipairs(vim.lsp.get_clients({ name = require('c2l.launch').NAME })) do
      client.execute(server, protocol.Command.TOGGLE, { { enabled = on } })
    end
  end
  require('c2l.suggest').restart()
  require('c2l.status').event('C2lStatus', require('c2l.status').get(buf))
  vim.cmd.redrawstatus({ bang = true })
end

--- Toggle suggestions, in one buffer or in all.
---@param buf? integer
function M.toggle(buf)
  if buf then
    buf = buf == 0 and vim.api.nvim_get_current_buf() or buf
    local on = of_buffer(buf)
    if on == nil then -- without a switch of its own, the language decides
      on = require('c2l.status').get(buf).disabledReason ~= protocol.Reason.LANGUAGE
    end
    M.set(not on, buf)
  else
    M.set(not everywhere)
  end
end

return M
