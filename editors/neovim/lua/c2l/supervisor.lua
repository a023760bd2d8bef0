--- Keeps a server running: starts one that died again, and gives up with a reason when it dies too often.
local client = require('c2l.client')
local config = require('c2l.config')
local launch = require('c2l.launch')

local M = {}

local WINDOW = 180 -- seconds within which deaths are counted
local PAUSE = 500 -- ms before a new start

---@type number[] when servers died, in seconds
local deaths = {}
---@type table<integer, boolean> clients that were asked to end
local asked = {}
---@type table<integer, true> buffers that were served and are to be served again
local orphans = {}
local leaving = false

vim.api.nvim_create_autocmd('VimLeavePre', { callback = function() leaving = true end })

--- A buffer has lost its server. Remembered, so that it gets the next one.
---@param buf integer
function M.orphan(buf) orphans[buf] = true end

local function adopt()
  local bufs = vim.tbl_keys(orphans)
  orphans = {}
  for _, buf in ipairs(bufs) do
    client.start(buf)
  end
end

local function recent()
  local now = vim.uv.hrtime() / 1e9
  deaths = vim.tbl_filter(function(at) return now - at < WINDOW end, deaths)
  return #deaths, now
end

--- The server of a client has ended.
---@param id integer
---@param code integer
---@param signal integer
function M.exited(id, code, signal)
  local by_us = asked[id]
  asked[id] = nil
  require('c2l.status').ended(id)
  if by_us or leaving or not config.active then
    return
  elseif code == 0 and signal == 0 then
    orphans = {} -- the user has stopped it
    return
  end
  local count, now = recent()
  table.insert(deaths, now)
  local how = signal ~= 0 and ('signal %d'):format(signal) or ('exit code %d'):format(code)
  if count >= config.options.restarts then
    require('c2l.status').gave_up(('The server ended again (%s). :C2L restart starts it, :C2L log says more.'):format(how))
    return
  end
  vim.defer_fn(adopt, PAUSE * (count + 1))
end

--- End every server and start anew, also after giving up.
function M.restart()
  deaths = {}
  for _, one in ipairs(vim.lsp.get_clients({ name = launch.NAME, _uninitialized = true })) do
    asked[one.id] = true
    for buf in pairs(one.attached_buffers) do
      orphans[buf] = true
    end
    client.stop(one)
    vim.defer_fn(function()
      if not one.is_stopped(one) then
        client.stop(one, true)
      end
    end, 3000)
  end
  orphans[vim.api.nvim_get_current_buf()] = true
  local tries = 0
  local function again()
    tries = tries + 1
    local left = vim.lsp.get_clients({ name = launch.NAME, _uninitialized = true })
    left = vim.tbl_filter(function(one) return not one.is_stopped(one) end, left)
    if #left > 0 and tries < 100 then
      return vim.defer_fn(again, 50)
    end
    adopt()
  end
  again()
end

return M
