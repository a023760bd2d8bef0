--- On and off: everywhere, or for one buffer by `b:c2l_enabled`. The server is told, so that its status agrees, and what
--- was told to one server is told to the next.
local client = require('c2l.client')
local protocol = require('c2l.protocol')

local M = {}

local everywhere = true
---@type table<integer, boolean> what the server was told last, by buffer
local told = {}
---@type table<string, boolean>
local languages = {}
---@type table<string, boolean> folders whose adapter is off
local adapters_off = {}
local snoozed_until = 0

---@param buf integer
---@return boolean?
local function of_buffer(buf)
  local value = vim.b[buf].c2l_enabled
  if value == nil then
    return nil
  end
  return value ~= false and value ~= 0
end

--- Whether suggestions are on for a buffer as far as Neovim knows; if not, the reason.
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

--- Tell the server what `b:c2l_enabled` says, if that is news.
---@param buf integer
function M.sync(buf)
  local value, server = of_buffer(buf), client.get(buf)
  if value ~= nil and server and told[buf] ~= value then
    told[buf] = value
    client.execute(server, protocol.Command.TOGGLE, { { uri = vim.uri_from_bufnr(buf), enabled = value } })
  end
end

--- A server is attached to a buffer: it forgot the buffer's switch when the buffer was last closed.
---@param buf integer
function M.attached(buf)
  told[buf] = nil
  M.sync(buf)
end

--- What a server that starts is told.
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

--- The server has turned a language on or off.
---@param language string
---@param on boolean
function M.language(language, on) languages[language] = on end

--- The server sleeps until then, in seconds since the epoch; 0: it is awake.
---@param till number
function M.snoozed(till) snoozed_until = till end

--- The server has turned a folder's adapter on or off.
---@param folder string
---@param on boolean
function M.adapter(folder, on) adapters_off[folder] = not on or nil end

--- Turn suggestions on or off, in one buffer or everywhere.
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
  require('c2l.suggest').switched()
  require('c2l.status').event('C2lStatus', require('c2l.status').get(buf))
  vim.cmd.redrawstatus({ bang = true })
end

--- Turn off what is on, and on what is off.
---@param buf? integer
function M.toggle(buf)
  if buf then
    buf = buf == 0 and vim.api.nvim_get_current_buf() or buf
    local on = of_buffer(buf)
    if on == nil then -- then the language decides
      on = require('c2l.status').get(buf).disabledReason ~= protocol.Reason.LANGUAGE
    end
    M.set(not on, buf)
  else
    M.set(not everywhere)
  end
end

return M
