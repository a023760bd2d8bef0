--- Accepts the shown suggestion: all of it, its next line or its next word, as one undo step.
local client = require('c2l.client')
local status = require('c2l.status')
local suggest = require('c2l.suggest')

local M = {}

---@alias c2l.AcceptKind 'all'|'line'|'word'

-- Bytes above 127 count as letters, so that words of all scripts are accepted as a whole.
local WORDS = { '^%s*[%w_\128-\255]+', '^%s*[^%w_%s\128-\255]+' }

---@type table<c2l.AcceptKind, fun(rest: string): string> the part of a text that each kind accepts
local PARTS = {
  all = function(rest) return rest end,
  line = function(rest) return rest:match('^\n*[^\n]+') or rest end,
  word = function(rest) return rest:match(WORDS[1]) or rest:match(WORDS[2]) or rest end,
}

--- Insert text at the cursor in place of `replaced`, and move the cursor behind it.
---@param view c2l.View
---@param text string
---@param replaced string
local function insert(view, text, replaced)
  local lines = vim.split(text, '\n', { plain = true })
  vim.cmd('let &g:undolevels = &g:undolevels') -- ends the undo step of the text that was typed before
  vim.api.nvim_buf_set_text(0, view.row, view.col, view.row, view.col + #replaced, lines)
  local col = #lines == 1 and view.col + #text or #lines[#lines]
  vim.api.nvim_win_set_cursor(0, { view.row + #lines, col })
end

---@param replacement c2l.Replacement
---@param kind c2l.AcceptKind
local function replace(replacement, kind)
  replacement:apply()
  suggest.clear()
  status.event('C2lAccepted', { buf = replacement.buf, kind = kind, text = replacement.text, whole = true })
  suggest.update()
end

---@param kind c2l.AcceptKind
local function accept(kind)
  local replacement = suggest.replacement()
  if replacement then
    return replace(replacement, kind)
  end
  local view = suggest.acceptable()
  if not view then
    return
  end
  local buf = vim.api.nvim_get_current_buf()
  local text = PARTS[kind](view.rest)
  -- If the remainder is only text that the buffer contains already, accept the remainder too.
  if #text >= #view.rest - #view.replaced then
    text = view.rest
  end
  local whole = text == view.rest
  insert(view, text, whole and view.replaced or '')
  local server, command = client.get(buf), view.candidate.command
  if server and command then
    local accepted = { id = command.arguments[1], chars = vim.fn.strchars(text), partly = not whole }
    client.execute(server, command.command, { accepted })
  end
  if whole then
    suggest.clear()
  end
  status.event('C2lAccepted', { buf = buf, kind = kind, text = text, whole = whole })
  suggest.update()
end

--- Accept the shown suggestion. Returns false if none is shown.
---
--- In an expression mapping, where the buffer must not change (E565), the text is inserted after the mapping.
---@param kind c2l.AcceptKind
---@return boolean
function M.accept(kind)
  if not suggest.acceptable() and not suggest.replacement() then
    return false
  end
  local ok, problem = pcall(accept, kind)
  if not ok and tostring(problem):find('E565') then
    vim.schedule(function() accept(kind) end)
  elseif not ok then
    error(problem, 0)
  end
  return true
end

return M
