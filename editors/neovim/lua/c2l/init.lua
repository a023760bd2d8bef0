--- Code completion that adapts to the repository. The public functions; see `:help c2l-functions`.
local M = {}

--- Start the server for buffers, draw suggestions and set the keys.
---@param options? c2l.Options
function M.setup(options)
  if vim.fn.has('nvim-0.10') == 0 then
    vim.notify('c2l needs Neovim 0.10 or newer.', vim.log.levels.ERROR)
    return
  end
  vim.cmd.runtime('plugin/c2l.lua') -- a plugin manager may load this module after it has sourced the plugin folders
  local config = require('c2l.config')
  for _, problem in ipairs(config.set(options)) do
    vim.notify(problem, vim.log.levels.WARN)
  end
  require('c2l.attach').follow()
  require('c2l.keymaps').set(config.options.keymaps)
  require('c2l.client').enable()
end

--- Change settings while running. A change of settings that only a user may set (`model`, `remote`, `server`, limits on
--- readable files) restarts the server.
---@param settings c2l.Settings
function M.configure(settings)
  local config, client, launch = require('c2l.config'), require('c2l.client'), require('c2l.launch')
  local machine = config.machine_settings()
  config.options.settings = vim.tbl_deep_extend('force', config.options.settings, settings)
  if vim.lsp.config then
    vim.lsp.config(launch.NAME, launch.spec())
  end
  if not vim.deep_equal(machine, config.machine_settings()) then
    return M.restart()
  end
  for _, one in ipairs(vim.lsp.get_clients({ name = launch.NAME })) do
    client.configure(one, config.workspace_settings())
  end
end

---@class c2l.Where
---@field buf? integer a buffer, 0 for the current one; nil: all buffers

---@param where? c2l.Where
function M.enable(where) require('c2l.switch').set(true, where and where.buf) end

---@param where? c2l.Where
function M.disable(where) require('c2l.switch').set(false, where and where.buf) end

---@param where? c2l.Where
function M.toggle(where) require('c2l.switch').toggle(where and where.buf) end

--- Set whether the workspace folders are trusted. Files of untrusted folders are neither read nor indexed nor stored.
---@param trusted boolean
function M.trust(trusted)
  local config, client, launch = require('c2l.config'), require('c2l.client'), require('c2l.launch')
  config.options.trusted = trusted
  if vim.lsp.config then
    vim.lsp.config(launch.NAME, launch.spec())
  end
  for _, one in ipairs(vim.lsp.get_clients({ name = launch.NAME })) do
    client.notify(one, require('c2l.protocol').DID_CHANGE_TRUST, { trusted = trusted })
  end
end

--- Request suggestions explicitly. Returns false without a server or outside Insert mode.
---@return boolean
function M.trigger() return require('c2l.suggest').trigger() end

--- Accept the whole suggestion. Like the next five functions, returns false if none is shown.
---@return boolean
function M.accept() return require('c2l.accept').accept('all') end

---@return boolean
function M.accept_word() return require('c2l.accept').accept('word') end

---@return boolean
function M.accept_line() return require('c2l.accept').accept('line') end

---@return boolean
function M.next() return require('c2l.suggest').cycle(1) end

---@return boolean
function M.prev() return require('c2l.suggest').cycle(-1) end

---@return boolean
function M.dismiss() return require('c2l.suggest').dismiss() end

---@return boolean
function M.is_visible() return require('c2l.suggest').is_visible() end

--- Returns the last status that the server sent. With `reply`, also requests the current status, which includes the reason
--- why the buffer gets no suggestions.
---@param where? c2l.Where
---@param reply? fun(status: c2l.Status)
---@return c2l.Status
function M.status(where, reply)
  local buf = where and where.buf or 0
  buf = buf == 0 and vim.api.nvim_get_current_buf() or buf
  if reply then
    require('c2l.status').ask(buf, reply)
  end
  return require('c2l.status').get(buf)
end

--- Request the statistics: counts of shown and accepted suggestions, and latencies. They stay on this machine.
---@param reply fun(statistics: table?)
---@param reset? boolean set all counts to zero afterwards
function M.statistics(reply, reset)
  local client = require('c2l.client')
  local server = client.get()
  if not server then
    return reply(nil)
  end
  local method = require('c2l.protocol').Method.STATISTICS
  client.request(server, method, { reset = reset or false }, function(err, result) reply(not err and result or nil) end)
end

--- Returns the text for a statusline.
---@return string
function M.statusline() return require('c2l.status').line() end

--- Restart the server.
function M.restart() require('c2l.supervisor').restart() end

return M
