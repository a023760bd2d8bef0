--- The client as Neovim 0.10 to 0.12 know it: one spelling for what they spell differently.
local launch = require('c2l.launch')
local protocol = require('c2l.protocol')

local M = {}

-- From 0.11 on these are methods; before, they are functions that hold their client.
local METHODS = vim.fn.has('nvim-0.11') == 1

local function call(client, name, ...)
  if METHODS then
    return client[name](client, ...)
  end
  return client[name](...)
end

--- The running client of a buffer, or any running one.
---@param buf? integer
---@return vim.lsp.Client?
function M.get(buf)
  for _, client in ipairs(vim.lsp.get_clients({ name = launch.NAME, bufnr = buf })) do
    if client.initialized and not call(client, 'is_stopped') then
      return client
    end
  end
end

--- Whether a client is there that the server has not answered yet.
---@return boolean
function M.starting()
  for _, client in ipairs(vim.lsp.get_clients({ name = launch.NAME, _uninitialized = true })) do
    if not client.initialized and not call(client, 'is_stopped') then
      return true
    end
  end
  return false
end

--- A received value without JSON's null, which is not nil in Lua.
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

--- Tell the server that its settings have changed; it asks for them.
---@param client vim.lsp.Client
---@param settings c2l.Settings
function M.configure(client, settings)
  client.settings = vim.tbl_extend('force', client.settings or {}, { [protocol.SECTION] = settings })
  client.config.settings = client.settings
  M.notify(client, 'workspace/didChangeConfiguration', { settings = client.settings })
end

--- Byte column of a position that counts the units of `encoding`.
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

--- Whether a buffer is one that is served.
---@param buf integer
---@return boolean
local function served(buf)
  local filetypes = require('c2l.config').options.filetypes
  return vim.api.nvim_buf_is_loaded(buf)
    and vim.bo[buf].buftype == ''
    and vim.bo[buf].filetype ~= ''
    and (not filetypes or vim.tbl_contains(filetypes, vim.bo[buf].filetype))
end

--- Start the server for a buffer, or let the buffer join the server that runs.
---@param buf integer
function M.start(buf)
  if not served(buf) then
    return
  end
  local spec = vim.lsp.config and vim.deepcopy(vim.lsp.config[launch.NAME]) or launch.spec()
  spec.root_dir = vim.fs.root(buf, spec.root_markers)
  vim.lsp.start(spec, { bufnr = buf, reuse_client = spec.reuse_client })
end

--- Serve buffers as they get their file type, and those that have one already.
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
