--- The LSP client with one interface for Neovim 0.10 to 0.12, whose APIs differ.
local launch = require('c2l.launch')
local protocol = require('c2l.protocol')

local M = {}

-- Client functions are methods since 0.11; in 0.10 they are closures.
local METHODS = vim.fn.has('nvim-0.11') == 1

local function call(client, name, ...)
  if METHODS then
    return client[name](client, ...)
  end
  return client[name](...)
end

--- Returns the running client of a buffer, or without `buf` any running client.
---@param buf? integer
---@return vim.lsp.Client?
function M.get(buf)
  for _, client in ipairs(vim.lsp.get_clients({ name = launch.NAME, bufnr = buf })) do
    if client.initialized and not call(client, 'is_stopped') then
      return client
    end
  end
end

--- Returns whether a client is waiting for the server to initialize.
---@return boolean
function M.starting()
  for _, client in ipairs(vim.lsp.get_clients({ name = launch.NAME, _uninitialized = true })) do
    if not client.initialized and not call(client, 'is_stopped') then
      return true
    end
  end
  return false
end

--- Returns a received value with JSON's null replaced by nil.
---@param value any
---@return any
function M.plain(value)
  if value == vim.NIL then
    return nil
  elseif type(value) == 'table' then
    return vim.tbl_map(M.plain, value)
  end
  return value
end

--- Send a request; `reply` is called with the result. Returns nil if it could not be sent.
---@param client vim.lsp.Client
---@param method string
---@param params any an empty table must be `vim.empty_dict()`
---@param reply fun(err: table?, result: any)
---@param buf? integer
---@return integer? id
function M.request(client, method, params, reply, buf)
  local sent, id = call(client, 'request', method, params, function(err, result)
    reply(err, M.plain(result))
  end, buf or vim.api.nvim_get_current_buf())
  return sent and id or nil
end

---@param client vim.lsp.Client
---@param method string
---@param params any
function M.notify(client, method, params) call(client, 'notify', method, params) end

---@param client vim.lsp.Client
---@param id integer
function M.cancel(client, id)
  if not call(client, 'is_stopped') then
    call(client, 'cancel_request', id)
  end
end

---@param client vim.lsp.Client
---@param force? boolean
function M.stop(client, force) call(client, 'stop', force or false) end

--- Run one of the server's commands.
---@param client vim.lsp.Client
---@param command string
---@param arguments? any[]
---@param reply? fun(err: table?, result: any)
function M.execute(client, command, arguments, reply)
  local params = { command = command, arguments = arguments }
  M.request(client, 'workspace/executeCommand', params, reply or function() end)
end

--- Notify the server of changed settings; the server then requests them.
---@param client vim.lsp.Client
---@param settings c2l.Settings
function M.configure(client, settings)
  client.settings = vim.tbl_extend('force', client.settings or {}, { [protocol.SECTION] = settings })
  client.config.settings = client.settings
  M.notify(client, 'workspace/didChangeConfiguration', { settings = client.settings })
end

--- Returns the byte column of a position that is given in code units of `encoding`.
---@param line string
---@param units integer
---@param encoding string
---@return integer
function M.byte(line, units, encoding)
  if encoding == 'utf-8' then
    return math.min(units, #line)
  end
  if METHODS then
    return vim.str_byteindex(line, encoding, units, false)
  end
  local ok, byte = pcall(vim.str_byteindex, line, units, encoding == 'utf-16')
  return ok and byte or #line
end

--- Returns whether the server is used for a buffer.
---@param buf integer
---@return boolean
local function is_served(buf)
  local filetypes = require('c2l.config').options.filetypes
  return vim.api.nvim_buf_is_loaded(buf)
    and vim.bo[buf].buftype == ''
    and vim.bo[buf].filetype ~= ''
    and (not filetypes or vim.tbl_contains(filetypes, vim.bo[buf].filetype))
end

--- Attach a buffer to the running server; start a server if none is running.
---@param buf integer
function M.start(buf)
  if not is_served(buf) then
    return
  end
  local spec = vim.lsp.config and vim.deepcopy(vim.lsp.config[launch.NAME]) or launch.spec()
  spec.root_dir = vim.fs.root(buf, spec.root_markers)
  vim.lsp.start(spec, { bufnr = buf, reuse_client = spec.reuse_client })
end

--- Attach all existing and future buffers of the configured file types.
function M.enable()
  if vim.lsp.config then
    vim.lsp.config(launch.NAME, launch.spec())
    vim.lsp.enable(launch.NAME)
    return
  end
  vim.api.nvim_create_autocmd('FileType', {
    group = vim.api.nvim_create_augroup('c2l.start', {}),
    callback = function(event) M.start(event.buf) end,
  })
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    M.start(buf)
  end
end

return M
