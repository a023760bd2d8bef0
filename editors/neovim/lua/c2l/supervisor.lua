--- Restarts a crashed server, and gives up with a message if it crashes too often.
local client = require('c2l.client')
local config = require('c2l.config')
local launch = require('c2l.launch')

local M = {}

local WINDOW = 180 -- seconds; older crashes do not count
local PAUSE = 500 -- ms before the first restart; later ones wait longer

---@type number[] times of crashes, in seconds
local crashes = {}
---@type table<integer, boolean> clients that were stopped on purpose
local stopped = {}
---@type table<integer, true> buffers to attach to the next server
local detached = {}
local exiting = false

vim.api.nvim_create_autocmd('VimLeavePre', { callback = function() exiting = true end })

--- Attach a buffer that lost its server to the next one.
---@param buf integer
function M.reattach_later(buf) detached[buf] = true end

local function reattach()
  local bufs = vim.tbl_keys(detached)
  detached = {}
  for _, buf in ipairs(bufs) do
    client.start(buf)
  end
end

local function recent()
  local now = vim.uv.hrtime() / 1e9
  crashes = vim.tbl_filter(function(at) return now - at < WINDOW end, crashes)
  return #crashes, now
end

--- Handle the exit of a server; restart it after a crash.
---@param id integer
---@param code integer
---@param signal integer
function M.exited(id, code, signal)
  local on_purpose = stopped[id]
  stopped[id] = nil
  require('c2l.status').ended(id)
  if on_purpose or exiting or not config.active then
    return
  elseif code == 0 and signal == 0 then
    detached = {} -- stopped by the user
    return
  end
  local count, now = recent()
  table.insert(crashes, now)
  local how = signal ~= 0 and ('signal %d'):format(signal) or ('exit code %d'):format(code)
  if count >= config.options.restarts then
    require('c2l.status').gave_up(('The server crashed repeatedly (%s). Use :C2L restart to start it and :C2L log to see its log.'):format(how))
    return
  end
  vim.defer_fn(reattach, PAUSE * (count + 1))
end

--- Stop every server and start a new one, also after giving up.
function M.restart()
  crashes = {}
  for _, one in ipairs(vim.lsp.get_clients({ name = launch.NAME, _uninitialized = true })) do
    stopped[one.id] = true
    for buf in pairs(one.attached_buffers) do
      detached[buf] = true
    end
    client.stop(one)
    vim.defer_fn(function()
      if not one.is_stopped(one) then
        client.stop(one, true)
      end
    end, 3000)
  end
  detached[vim.api.nvim_get_current_buf()] = true
  local tries = 0
  local function again()
    tries = tries + 1
    local left = vim.lsp.get_clients({ name = launch.NAME, _uninitialized = true })
    left = vim.tbl_filter(function(one) return not one.is_stopped(one) end, left)
    if #left > 0 and tries < 100 then
      return vim.defer_fn(again, 50)
    end
    reattach()
  end
  again()
end

return M
