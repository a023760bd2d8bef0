--- On and off: everywhere, or for one buffer by `b:c2l_enabled`. The server is told, so that its status agrees.
local client = require('c2l.client')
local protocol = require('c2l.protocol')

local M = {}

local everywhere = true
---@type table<integer, boolean> what the server was told last, by buffer
local told = {}

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

--- A server is attached to a buffer: it knows nothing of the switches yet.
---@param server vim.lsp.Client
---@param buf integer
function M.attached(server, buf)
  told[buf] = nil
  M.sync(buf)
  if not everywhere then
    client.execute(server, protocol.Command.TOGGLE, { { enabled = false } })
  end
end

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
    M.set(of_buffer(buf) == false, buf)
  else
    M.set(not everywhere)
  end
end

return M
