--- When to ask for a suggestion, what becomes of the answer, and what the cursor's every step does to what is shown.
---
--- Runs inside the autocommands, before the screen is drawn: typing along shortens the shown text in the same frame.
--- At most one request is under way; a step that the suggestion does not survive cancels it and asks anew.
local client = require('c2l.client')
local config = require('c2l.config')
local ghost = require('c2l.ghost')
local status = require('c2l.status')
local suggestion = require('c2l.suggestion')
local switch = require('c2l.switch')

local M = {}

local AUTOMATIC, INVOKED = 2, 1
local METHOD = 'textDocument/inlineCompletion'

---@class c2l.Asked a request, and the place it was asked for
---@field buf integer
---@field tick integer
---@field row integer
---@field col integer
---@field invoked boolean
---@field server? vim.lsp.Client
---@field id? integer
---@field done? fun() called with the answer shown, in place of announcing it

---@type c2l.Suggestion?
local current
---@type c2l.Asked? the request under way
local pending
---@type string? the server's id of what was shown last
local last_id
---@type c2l.Asked? the place that has its answer; no second automatic request is made for it
local settled

---@return integer row, integer col
local function cursor()
  local at = vim.api.nvim_win_get_cursor(0)
  return at[1] - 1, at[2]
end

---@return c2l.Asked
local function here()
  local row, col = cursor()
  local buf = vim.api.nvim_get_current_buf()
  return { buf = buf, tick = vim.api.nvim_buf_get_changedtick(buf), row = row, col = col, invoked = false }
end

---@param a? c2l.Asked
---@param b c2l.Asked
local function same(a, b) return a and a.buf == b.buf and a.tick == b.tick and a.row == b.row and a.col == b.col end

local function inserting() return vim.startswith(vim.api.nvim_get_mode().mode, 'i') end

local function popup() return config.options.hide_on_popup and config.options.popup_visible() end

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
  ghost.clear()
end

--- What is left of the suggestion at the cursor, shown or hidden behind a menu.
---@return c2l.View?
local function view()
  if current and current.buf == vim.api.nvim_get_current_buf() and inserting() then
    return current:view(cursor())
  end
end

---@param loading? boolean
local function draw(loading)
  local left = view()
  if not left or popup() then
    return ghost.clear()
  end
  local annotation
  if current.cycled then
    annotation = (' (%d/%s)'):format(left.position, loading and '…' or left.count)
  end
  ghost.draw(current.buf, left, annotation)
end

---@param left c2l.View
local function announce(left)
  last_id = vim.tbl_get(left.candidate, 'command', 'arguments', 1) or last_id
  status.event('C2lShown', { buf = current.buf, text = left.rest, position = left.position, count = left.count })
end

--- An explicit request was in vain: the user asked, so the user is told why.
local function explain(buf)
  status.why(buf, function(sentence)
    vim.api.nvim_echo({ { 'c2l: ' .. (sentence or 'No suggestion here.') } }, false, {})
  end)
end

---@param asked c2l.Asked
---@param items table[]
local function answered(asked, items)
  local row, col = cursor()
  local made = suggestion.new(asked.buf, row, col, items, asked.server.offset_encoding)
  local left = view()
  if not made then
    if left then
      current.complete = current.complete or asked.invoked
    elseif asked.invoked then
      explain(asked.buf)
    end
    status.refresh(asked.buf) -- the engine may have said that the file is left out
    return draw()
  end
  if asked.invoked and left then
    current = current:merged(made, left)
  else
    drop()
    current = made
    current.complete = asked.invoked
  end
  if asked.done then
    asked.done()
  end
  draw()
  local shown = view()
  if shown then
    announce(shown)
  end
end

---@param asked c2l.Asked
local function ask(asked)
  local server = client.get(asked.buf)
  if not server then
    return
  end
  cancel()
  switch.sync(asked.buf)
  asked.server = server
  local params = vim.lsp.util.make_position_params(0, server.offset_encoding)
  params.context = { triggerKind = asked.invoked and INVOKED or AUTOMATIC }
  pending = asked
  asked.id = client.request(server, METHOD, params, function(err, result)
    if pending ~= asked then
      return
    end
    pending = nil
    if not inserting() or not same(asked, here()) then
      return -- too late: the text or the cursor has moved on
    end
    settled = asked
    if err then
      draw()
    elseif result then
      answered(asked, result.items or result)
    end
  end, asked.buf)
  if not asked.id then
    pending = nil
  end
end

---@param asked c2l.Asked
local function worth_asking(asked)
  return inserting()
    and not popup()
    and switch.enabled(asked.buf)
    and vim.bo[asked.buf].modifiable
    and vim.fn.reg_executing() == ''
    and not same(pending, asked)
    and not same(settled, asked)
end

--- The text or the cursor has moved, or something else has changed: show what is right now.
function M.update()
  if view() then
    if pending and not same(pending, here()) then
      cancel()
    end
    return draw()
  end
  drop()
  local asked = here()
  if pending and not same(pending, asked) then
    cancel()
  end
  if worth_asking(asked) then
    ask(asked)
  end
end

--- Insert mode begins: ask even where an answer was had before.
function M.enter()
  settled = nil
  M.update()
end

--- Insert mode or the buffer is left: nothing is shown, nothing is awaited.
function M.leave()
  cancel()
  drop()
  settled = nil
end

--- A switch was set, here or in the server: what is shown may not be right any more, and what is not may be wanted.
function M.switched()
  M.leave()
  if inserting() and switch.enabled(vim.api.nvim_get_current_buf()) then
    M.enter()
  end
end

--- The server's state has changed: what was asked in vain before it was ready is asked again.
---@param before? string
---@param now string
function M.status_changed(before, now)
  if now == 'disabled' then
    M.leave()
  elseif before ~= now and now == 'ready' and inserting() and not pending then
    M.enter()
  end
end

--- Ask explicitly. False if there is nobody to ask.
---@return boolean
function M.trigger()
  local asked = here()
  if not client.get(asked.buf) or not inserting() then
    return false
  end
  asked.invoked = true
  ask(asked)
  return true
end

--- Show another candidate; where there is only one, ask for more first. False if nothing is shown.
---@param step integer
---@return boolean
function M.cycle(step)
  local left = view()
  if not left then
    return false
  end
  local function move()
    local row, col = cursor()
    current:cycle(row, col, step)
  end
  if current.complete or left.count > 1 then
    move()
    draw()
    announce(view() or left)
    return true
  end
  local asked = here()
  asked.invoked, asked.done = true, move
  ask(asked)
  current.cycled = true
  draw(true)
  return true
end

--- Hide the suggestion until the text or the cursor moves. False if nothing was shown.
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
function M.is_visible() return ghost.text() ~= nil and view() ~= nil end

--- What may be accepted now.
---@return c2l.View?
function M.acceptable() return M.is_visible() and view() or nil end

--- The whole suggestion is in the buffer now.
function M.taken()
  cancel()
  drop()
end

--- The server's id of what was shown last, for `:C2L explain`.
---@return string?
function M.id() return last_id end

return M
