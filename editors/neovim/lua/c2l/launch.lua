--- The command line of the server and the configuration of its client.
local config = require('c2l.config')
local protocol = require('c2l.protocol')

local M = {}

M.NAME = 'c2l'

--- A Python program that is the server. `python -m` would import from the current folder, which is the opened one.
M.PROGRAM =
  "import sys; sys.path = [p for p in sys.path if p]; sys.argv[0] = 'c2l-lsp'; from c2l_lsp.__main__ import main; main()"

--- Variables that make Python import from other folders; they may name the opened one.
M.VARIABLES = {
  'PYTHONPATH',
  'PYTHONHOME',
  'PYTHONPLATLIBDIR',
  'PYTHONUSERBASE',
  'PYTHONPYCACHEPREFIX',
  'PYTHONEXECUTABLE',
  'PYTHONSTARTUP',
  'PYTHONINSPECT',
  'PYTHONBREAKPOINT',
  'PYTHONWARNINGS',
}

--- Returns the options of `vim.system` with which a Python process imports nothing of the opened folder.
---@return { cwd: string, env: table<string, string> }
function M.isolation()
  local env = {}
  for _, name in ipairs(M.VARIABLES) do
    env[name] = '' -- as if it were not set
  end
  return { cwd = vim.fn.has('win32') == 1 and vim.env.SystemDrive .. '\\' or '/', env = env }
end

---@param python string
---@return string[]
local function program(python) return { python, '-E', '-c', M.PROGRAM, 'serve', '--stdio' } end

--- Returns the command line that starts the server: `server.path`, else `server.interpreter`, else the search path.
---@return string[]
function M.command()
  local server = config.options.settings.server or {}
  local command
  if (server.path or '') ~= '' then
    command = { vim.fn.expand(server.path), 'serve', '--stdio' }
  elseif (server.interpreter or '') ~= '' then
    command = program(vim.fn.expand(server.interpreter))
  elseif vim.fn.executable('c2l-lsp') == 1 then
    command = { 'c2l-lsp', 'serve', '--stdio' }
  else
    command = program(vim.fn.executable('python3') == 1 and 'python3' or 'python')
  end
  return vim.list_extend(command, server.args or {})
end

--- Returns a command line for another subcommand of the same installation, such as `doctor`; nil with the option `cmd`.
---@param ... string
---@return string[]?
function M.tool(...)
  if config.options.cmd then
    return nil
  end
  local command = {}
  for _, word in ipairs(M.command()) do
    if word == 'serve' then
      break
    end
    table.insert(command, word)
  end
  return vim.list_extend(command, { ... })
end

---@return table
local function capabilities()
  -- Neovim 0.10 and 0.11 do not support the request and therefore do not announce it.
  local extra = { textDocument = { inlineCompletion = { dynamicRegistration = false } } }
  if vim.fn.has('nvim-0.11') == 1 then
    return extra
  end
  return vim.tbl_deep_extend('force', vim.lsp.protocol.make_client_capabilities(), extra)
end

--- Returns the client configuration for `vim.lsp.config` and `vim.lsp.start`.
---@return table
function M.spec()
  local options, isolation = config.options, M.isolation()
  return {
    name = M.NAME,
    cmd = options.cmd or M.command(),
    cmd_cwd = isolation.cwd,
    cmd_env = isolation.env,
    filetypes = options.filetypes or nil,
    root_markers = options.root_markers,
    capabilities = capabilities(),
    init_options = {
      trusted = options.trusted,
      userSettings = config.machine_settings(),
      reportsPartialAccept = true,
      showsProblems = true,
      showsReplacements = true,
    },
    before_init = function(params) params.initializationOptions.switches = require('c2l.switch').state() end,
    settings = { [protocol.SECTION] = config.workspace_settings() },
    handlers = {
      [protocol.DID_CHANGE_STATUS] = function(_, status, ctx)
        require('c2l.status').changed(ctx.client_id, require('c2l.client').plain(status))
      end,
      [protocol.ADAPTER_DID_CHANGE] = function(_, change)
        require('c2l.status').adapter_changed(require('c2l.client').plain(change))
      end,
      [protocol.PROBLEM] = function(_, problem)
        require('c2l.status').problem(require('c2l.client').plain(problem))
      end,
    },
    on_init = function(client) require('c2l.folders').flush(client) end,
    on_exit = function(code, signal, client_id)
      vim.schedule(function() require('c2l.supervisor').exited(client_id, code, signal) end)
    end,
    reuse_client = function(client, spec) return require('c2l.folders').join(client, spec) end,
  }
end

return M
