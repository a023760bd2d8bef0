--- Requests suggestions and updates the ghost text as the text and the cursor change.
---
--- Runs inside autocommands, before the screen is redrawn, so that the ghost text is shortened in the same frame in which
--- its first character is typed. At most one request is pending; a change that invalidates it cancels it.
local client = require('c2l.client')
local config = require('c2l.config')
local ghost = require('c2l.ghost')
local replacement = require('c2l.replacement')
local status = require('c2l.status')
local suggestion = require('c2l.suggestion')
local switch = require('c2l.switch')

local M = {}

local AUTOMATIC, INVOKED = 2, 1
local METHOD = 'textDocument/inlineCompletion'

---@class c2l.Request a request and its position
---@field buf integer
---@field tick integer
---@field row integer
---@field col integer
---@field invoked boolean
---@field server? vim.lsp.Client
---@field id? integer
---@field done? fun() called after the result was stored and before it is drawn

---@type c2l.Suggestion?
local current
---@type c2l.Replacement? shown in place of a suggestion
local replacing
---@type c2l.Request? the pending request
local pending
---@type string? the server's id of the last shown suggestion
local last_id
---@type c2l.Request? the position that was answered or dismissed; no second automatic request is sent for it
local settled

---@return integer row, integer col
local function cursor()
  local at = vim.api.nvim_win_get_cursor(0)
  return at[1] - 1, at[2]
end

---@return c2l.Request
local function here()
  local row, col = cursor()
  local buf = vim.api.nvim_get_current_buf()
  return { buf = buf, tick = vim.api.nvim_buf_get_changedtick(buf), row = row, col = col, invoked = false }
end

---@param a? c2l.Request
---@param b c2l.Request
local function same(a, b) return a and a.buf == b.buf and a.tick == b.tick and a.row == b.row and a.col == b.col end

local function in_insert_mode() return vim.startswith(vim.api.nvim_get_mode().mode, 'i') end

local function popup_is_open() return config.options.hide_on_popup and config.options.popup_visible() end

local function cancel()
  if pending and pending.server and pending.id then
    client.cancel(pending.server, pending.id)
  end
  pending = nil
end

local function drop()
  if current then
    current:close()
    current = nil
  end
  replacing = nil
  ghost.clear()
end

--- Returns the remaining suggestion at the cursor, also while a completion menu hides it.
---@return c2l.View?
local function view()
  if current and current.buf == vim.api.nvim_get_current_buf() and in_insert_mode() then
    return current:view(cursor())
  end
end

--- Returns the replacement on the cursor's line.
---@return c2l.Replacement?
local function replaceable()
  local row = cursor()
  return replacing and replacing:applies(vim.api.nvim_get_current_buf(), row) and in_insert_mode() and replacing or nil
end

---@param loading? boolean
local function draw(loading)
  if replaceable() and not popup_is_open() then
    return ghost.draw_replacement(replacing)
  end
  local remaining = view()
  if not remaining or popup_is_open() then
    return ghost.clear()
  end
  local annotation
  if current.cycled then
    annotation = (' (%d/%s)'):format(remaining.position, loading and '…' or remaining.count)
  end
  ghost.draw(current.buf, remaining, annotation)
end

---@param remaining c2l.View
local function emit_shown(remaining)
  last_id = vim.tbl_get(remaining.candidate, 'command', 'arguments', 1) or last_id
  status.event('C2lShown', { buf = current.buf, text = remaining.rest, position = remaining.position, count = remaining.count })
end

--- Show why an explicit request returned nothing.
local function explain(buf)
  status.why(buf, function(sentence)
    vim.api.nvim_echo({ { 'c2l: ' .. (sentence or 'No suggestion here.') } }, false, {})
  end)
end

---@param request c2l.Request
---@param items table[]
local function store_result(request, items)
  local row, col = cursor()
  local new = suggestion.new(request.buf, row, col, items, request.server.offset_encoding)
  local remaining = view()
  local replaced = not new and replacement.new(request.buf, row, items[1], request.server.offset_encoding)
  if replaced then
    drop()
    replacing = replaced
    draw()
    status.event('C2lShown', { buf = request.buf, text = replaced.text, position = 1, count = 1 })
    return
  end
  if not new then
    if remaining then
      current.complete = current.complete or request.invoked
    elseif request.invoked then
      explain(request.buf)
    end
    status.refresh(request.buf) -- the engine may have found that the file is excluded
    return draw()
  end
  if request.invoked and remaining then
    current = current:merged(new, remaining)
  else
    drop()
    current = new
    current.complete = request.invoked
  end
  if request.done then
    request.done()
  end
  draw()
  local shown = view()
  if shown then
    emit_shown(shown)
  end
end

---@param request c2l.Request
local function send(request)
  local server = client.get(request.buf)
  if not server then
    return
  end
  cancel()
  switch.sync(request.buf)
  request.server = server
  local params = vim.lsp.util.make_position_params(0, server.offset_encoding)
  params.context = { triggerKind = request.invoked and INVOKED or AUTOMATIC }
  pending = request
  request.id = client.request(server, METHOD, params, function(err, result)
    if pending ~= request then
      return
    end
    pending = nil
    if not in_insert_mode() or not same(request, here()) then
      return -- outdated: the text or the cursor has changed
    end
    settled = request
    if err then
      draw()
    elseif result then
      store_result(request, result.items or result)
    end
  end, request.buf)
  if not request.id then
    pending = nil
  end
end

---@param request c2l.Request
local function should_request(request)
  return in_insert_mode()
    and not popup_is_open()
    and switch.enabled(request.buf)
    and vim.bo[request.buf].modifiable
    and vim.fn.reg_executing() == ''
    and not same(pending, request)
    and not same(settled, request)
end

--- Update ghost text and pending request after any change of text, cursor or mode.
function M.update()
  if view() or replaceable() then
    if pending and not same(pending, here()) then
      cancel()
    end
    return draw()
  end
  drop()
  local request = here()
  if pending and not same(pending, request) then
    cancel()
  end
  if should_request(request) then
    send(request)
  end
end

--- Insert mode starts: send a request even if the position was answered before.
function M.enter()
  settled = nil
  M.update()
end

--- Insert mode or the buffer was left: clear the ghost text and cancel the request.
function M.leave()
  cancel()
  drop()
  settled = nil
end

--- Suggestions were turned on or off: clear the ghost text, and send a new request if they are on.
function M.restart()
  M.leave()
  if in_insert_mode() and switch.enabled(vim.api.nvim_get_current_buf()) then
    M.enter()
  end
end

--- The server's state has changed: send a new request when it becomes ready, clear the ghost text when it is disabled.
---@param before? string
---@param now string
function M.status_changed(before, now)
  if now == 'disabled' then
    M.leave()
  elseif before ~= now and now == 'ready' and in_insert_mode() and not pending then
    M.enter()
  end
end

--- Send an explicit request. Returns false without a server or outside Insert mode.
---@return boolean
function M.trigger()
  local request = here()
  if not client.get(request.buf) or not in_insert_mode() then
    return false
  end
  request.invoked = true
  send(request)
  return true
end

--- Show another candidate, after requesting more if there is only one. Returns false if nothing is shown.
---@param step integer
---@return boolean
function M.cycle(step)
  local remaining = view()
  if not remaining then
    return false
  end
  local function move()
    local row, col = cursor()
    current:cycle(row, col, step)
  end
  if current.complete or remaining.count > 1 then
    move()
    draw()
    emit_shown(view() or remaining)
    return true
  end
  local request = here()
  request.invoked, request.done = true, move
  send(request)
  current.cycled = true
  draw(true)
  return true
end

--- Hide the suggestion until the text or the cursor changes. Returns false if nothing was shown.
---@return boolean
function M.dismiss()
  local shown = M.is_visible()
  if shown then
    M.leave()
    settled = here()
  end
  return shown
end

---@return boolean
function M.is_visible() return ghost.text() ~= nil and (view() or replaceable()) ~= nil end

--- Returns the shown suggestion, or nil if none is shown.
---@return c2l.View?
function M.acceptable() return M.is_visible() and view() or nil end

--- Returns the shown replacement, or nil if none is shown.
---@return c2l.Replacement?
function M.replacement() return M.is_visible() and replaceable() or nil end

--- Clear the suggestion, because all of it was accepted.
function M.clear()
  cancel()
  drop()
end

--- Returns the server's id of the last shown suggestion, for `:C2L explain`.
---@return string?
function M.id() return last_id end

return M
