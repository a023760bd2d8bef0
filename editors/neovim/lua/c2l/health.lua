--- `:checkhealth c2l`: problems that prevent suggestions, and how to fix them.
local client = require('c2l.client')
local config = require('c2l.config')
local launch = require('c2l.launch')
local report = require('c2l.report')

local M = {}

local health = vim.health

local function editor()
  health.start('Neovim')
  local version = vim.version()
  if vim.fn.has('nvim-0.10') == 0 then
    return health.error(('Neovim %s is not supported.'):format(tostring(version)), 'Install 0.10 or newer.')
  end
  health.ok('Neovim ' .. tostring(version))
  if config.active then
    health.ok('`require("c2l").setup()` was called.')
  elseif vim.lsp.is_enabled and vim.lsp.is_enabled(launch.NAME) then
    health.ok('`vim.lsp.enable("c2l")` was called: Neovim draws the suggestions (:help c2l-core).')
  else
    health.warn('c2l is not set up.', 'Call `require("c2l").setup {}` in your configuration.')
  end
end

---@param command string[]
---@return string? output, string? problem
local function run(command)
  local ok, process = pcall(vim.system, command, vim.tbl_extend('error', launch.isolation(), { text = true }))
  if not ok then
    return nil, tostring(process):match('^[^\n]*')
  end
  local done = process:wait(60000)
  if done.code ~= 0 and (done.stdout or '') == '' then
    local problem = vim.trim(done.stderr or ''):match('[^\n]*$')
    return nil, problem ~= '' and problem or ('exit code %d'):format(done.code)
  end
  return done.stdout
end

local function server()
  health.start('Server')
  local version = launch.tool('--version')
  if not version then
    return health.info('The server is started by the option `cmd`, which is not checked.')
  end
  health.info('Command: ' .. table.concat(launch.command(), ' '))
  local output, problem = run(version)
  if not output then
    return health.error('The command fails: ' .. problem, {
      'Install the server: `pipx install c2l-lsp` or `uv tool install c2l-lsp`.',
      'Or set a Python that has it installed: `settings = { server = { interpreter = "/path/to/python" } }`.',
    })
  end
  health.ok(vim.trim(output))
  local found = run(assert(launch.tool('doctor', '--json')))
  local ok, checks = pcall(vim.json.decode, found or '')
  if not ok then
    return health.warn('`c2l-lsp doctor` did not answer within a minute.')
  end
  for _, check in ipairs(checks) do
    local fix = check.fix ~= '' and check.fix or nil
    health[check.ok and 'ok' or 'error'](('%s: %s'):format(check.name, check.text), not check.ok and fix or nil)
  end
end

local function running()
  health.start('Running server')
  local found = client.get()
  if not found then
    local filetypes = config.options.filetypes
    local what = filetypes and table.concat(filetypes, ', ') or 'any'
    return health.warn('No server is running.', ('It starts when a buffer of one of these file types is opened: %s.'):format(what))
  end
  local buffers = vim.tbl_count(found.attached_buffers)
  health.ok(('Client %d serves %d buffer%s (position encoding: %s).'):format(found.id, buffers, buffers == 1 and '' or 's', found.offset_encoding))
  for _, folder in ipairs(found.workspace_folders or {}) do
    health.info('Folder: ' .. folder.name)
  end
  for _, line in ipairs(report.status(require('c2l.status').get(next(found.attached_buffers)))) do
    if line ~= '' then
      health.info(line)
    end
  end
  local core = vim.lsp.inline_completion
  if config.active and core and core.is_enabled({ client_id = found.id }) then
    health.warn('Neovim draws the same suggestions a second time.', 'Exclude this client from `vim.lsp.inline_completion.enable()`.')
  end
end

local function keys()
  if not config.active then
    return
  end
  health.start('Keys')
  for action, lhs in vim.spairs(config.options.keymaps or {}) do
    if not lhs then
      health.info(('%s: no key'):format(action))
    else
      local map = vim.fn.maparg(lhs, 'i', false, true)
      if map.desc == 'c2l: ' .. action:gsub('_', ' ') then
        health.ok(('%s: %s'):format(action, lhs))
      else
        local advice = ('Choose another key, or map `<Plug>(c2l-%s)` yourself.'):format((action:gsub('_', '-')))
        health.warn(('%s: %s was mapped again by another plugin or configuration.'):format(action, lhs), advice)
      end
    end
  end
end

function M.check()
  editor()
  server()
  running()
  keys()
end

return M
