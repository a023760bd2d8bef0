-- Run: nvim -l drive.lua SCENARIO
-- A parent Neovim controls a child over msgpack-RPC, in pure Lua. The exit code is 0 if the scenario passed. Environment:
--   C2L_SERVER  JSON list, the command that starts the server; without it, C2L_PYTHON names the interpreter
--   C2L_WORK    a folder for this run
--   C2L_FAULT   not empty: plant the scenario's fault, so that it must fail
--   C2L_WAIT    timeout of every wait, in ms
local HERE = vim.fs.dirname(vim.fn.fnamemodify(debug.getinfo(1, 'S').source:sub(2), ':p'))
local PLUGIN = vim.fs.normalize(HERE .. '/../../../editors/neovim')
local WAIT = tonumber(vim.env.C2L_WAIT) or 60000

local M = { work = vim.env.C2L_WORK, plugin = PLUGIN, fault = (vim.env.C2L_FAULT or '') ~= '', real = not vim.env.C2L_SERVER }
local channel

function M.say(...) io.stderr:write(table.concat(vim.tbl_map(tostring, { ... }), ' '), '\n') end

local function clean(value)
  if value == vim.NIL then
    return nil
  end
  return value
end

--- Run Lua in the child.
function M.lua(code, ...) return clean(vim.rpcrequest(channel, 'nvim_exec_lua', code, { ... })) end

--- Type in the child.
function M.keys(keys)
  local left = keys
  while left ~= '' do
    left = left:sub(vim.rpcrequest(channel, 'nvim_input', left) + 1)
  end
end

--- Wait until Lua code in the child returns a true value; return it.
function M.wait(code, ms)
  local got
  local ok = vim.wait(ms or WAIT, function()
    got = M.lua(code)
    return got and true or false
  end, 20)
  assert(ok, 'timed out waiting for: ' .. code .. '\n  shown: ' .. vim.inspect(M.ghost()) .. '\n  messages: ' .. M.lua("return vim.fn.execute('messages')"))
  return got
end

--- Let the child run for a while, to check that something does not happen.
function M.rest(ms) vim.wait(ms, function() return false end) end

function M.equal(got, expected, what)
  assert(vim.deep_equal(got, expected), ('%s\n  got:      %s\n  expected: %s'):format(what or 'differs', vim.inspect(got), vim.inspect(expected)))
end

function M.lines() return vim.rpcrequest(channel, 'nvim_buf_get_lines', 0, 0, -1, true) end

--- Return the ghost text of the current window, read from the extmarks; nil if there is none.
function M.ghost()
  return M.lua([[
    local ns = vim.api.nvim_get_namespaces()['c2l.ghost']
    for _, mark in ipairs(ns and vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true }) or {}) do
      if mark[4].virt_text then
        local lines = { mark[4].virt_text[1][1] }
        for _, line in ipairs(mark[4].virt_lines or {}) do table.insert(lines, line[1][1]) end
        return table.concat(lines, '\n')
      end
    end
  ]])
end

--- Wait for any ghost text, or for the expected one.
function M.shown(expected)
  local got
  vim.wait(WAIT, function()
    got = M.ghost()
    return got ~= nil and (expected == nil or got == expected)
  end, 20)
  if expected then
    M.equal(got, expected, 'ghost text')
  else
    assert(got, 'no ghost text\n  messages: ' .. M.lua("return vim.fn.execute('messages')"))
  end
  return got
end

--- Wait until there is no ghost text.
function M.hidden()
  assert(vim.wait(WAIT, function() return M.ghost() == nil end, 20), 'ghost text is still shown: ' .. vim.inspect(M.ghost()))
end

function M.write(path, lines, flags)
  path = M.work .. '/' .. path
  vim.fn.mkdir(vim.fs.dirname(path), 'p')
  vim.fn.writefile(lines, path, flags or '')
  return path
end

function M.edit(path) vim.rpcrequest(channel, 'nvim_command', 'edit ' .. vim.fn.fnameescape(path)) end

--- Start a child with only the plugin on its runtime path; or with this init.lua and its own configuration folders.
function M.start(init)
  vim.fn.mkdir(M.work .. '/.git', 'p')
  local env = { XDG_STATE_HOME = M.work .. '/../state-of-nvim' }
  local argv = { vim.v.progpath, '--embed', '--headless', '-n' }
  -- Without these, Neovim searches for a Python host on every Python file, which takes longer than a test.
  vim.list_extend(argv, { '--cmd', 'let g:loaded_python3_provider = 0 | let g:loaded_python_provider = 0' })
  if init then
    env.XDG_CONFIG_HOME, env.XDG_DATA_HOME, env.XDG_CACHE_HOME = M.work .. '/config', M.work .. '/data', M.work .. '/cache'
    M.write('config/nvim/init.lua', vim.split(init, '\n'))
    vim.list_extend(argv, { '-i', 'NONE' })
  else
    vim.list_extend(argv, { '--clean', '--cmd', 'set rtp^=' .. PLUGIN })
  end
  channel = vim.fn.jobstart(argv, { rpc = true, env = env })
  assert(channel > 0, 'the child did not start')
  M.lua('vim.o.shortmess = vim.o.shortmess .. "FIc"; vim.o.swapfile = false')
end

-- No latency budgets and no confidence threshold, which would make scenarios depend on the machine's load.
M.PATIENT = { completion = { maxLatencyMs = 20000, maxLatencyInvokedMs = 30000, minConfidence = 0 } }

--- Return options of `setup` with the server of this run.
function M.options(options)
  options = options or {}
  options.settings = vim.tbl_deep_extend('keep', options.settings or {}, M.PATIENT)
  if M.real then
    options.settings = vim.tbl_deep_extend('keep', options.settings or {}, { server = { interpreter = vim.env.C2L_PYTHON } })
  else
    options.cmd = vim.json.decode(vim.env.C2L_SERVER)
  end
  return options
end

--- Start a child, set up the plugin, open a file, and wait until the server is ready and has an adapter.
function M.open(lines, options)
  M.start()
  local path = M.write('demo.py', lines or { '' })
  M.lua('require("c2l").setup(...)', M.options(options))
  M.edit(path)
  M.ready()
  return path
end

M.READY = [[
  local status = require('c2l').status()
  return status.state == 'ready' and status.adapter and status.adapter.generation > 0
]]

--- Wait for the server. The timeout does not depend on C2L_WAIT, because the first start on a busy machine is slow.
function M.ready() return M.wait(M.READY, 180000) end

--- Count the requests and cancellations that the client sends from now on.
function M.count()
  M.lua([[
    _G.sent, _G.cancelled = 0, 0
    local rpc = vim.lsp.get_clients({ name = 'c2l' })[1].rpc
    local request, notify = rpc.request, rpc.notify
    rpc.request = function(method, ...)
      if method == 'textDocument/inlineCompletion' then _G.sent = _G.sent + 1 end
      return request(method, ...)
    end
    rpc.notify = function(method, ...)
      if method == '$/cancelRequest' then _G.cancelled = _G.cancelled + 1 end
      return notify(method, ...)
    end
  ]])
end

--- Record User events of one pattern in `_G.events`.
function M.listen(pattern)
  M.lua([[
    local pattern = ...
    _G.events = _G.events or {}
    vim.api.nvim_create_autocmd('User', { pattern = pattern, callback = function(event)
      table.insert(_G.events, { name = pattern, data = event.data })
    end })
  ]], pattern)
end

--- Return the process ids of the child's servers.
function M.servers() return M.lua('return vim.api.nvim_get_proc_children(vim.fn.getpid())') end

--- Plant the scenario's fault if C2L_FAULT is set.
function M.plant(code, ...)
  if M.fault then
    M.lua(code, ...)
  end
end

local function main()
  local name = _G.arg[1]
  package.path = HERE .. '/?.lua;' .. package.path
  package.loaded.drive = M
  local scenario = assert(require('scenarios')[name], 'no scenario ' .. name)
  local ok, problem = xpcall(scenario, debug.traceback)
  local stopped, pids = pcall(M.servers)
  pcall(vim.rpcrequest, channel, 'nvim_command', 'qall!')
  pcall(vim.fn.jobstop, channel)
  vim.fn.jobwait({ channel }, 10000)
  for _, pid in ipairs(stopped and pids or {}) do
    pcall(vim.uv.kill, pid, 'sigterm')
  end
  M.say(ok and 'OK ' .. name or 'FAILED ' .. name .. ': ' .. problem)
  os.exit(ok and 0 or 1)
end

main()
