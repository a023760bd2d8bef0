--- Takes the shown suggestion into the buffer: all of it, its next line or its next word, as one step of undo.
local client = require('c2l.client')
local status = require('c2l.status')
local suggest = require('c2l.suggest')

local M = {}

---@alias c2l.Piece 'all'|'line'|'word'

-- Bytes over 127 belong to letters: a word of any script is taken as a whole.
local WORDS = { '^%s*[%w_\128-\255]+', '^%s*[^%w_%s\128-\255]+' }

---@type table<c2l.Piece, fun(rest: string): string>
local PIECES = {
  all = function(rest) return rest end,
  line = function(rest) return rest:match('^\n*[^\n]+') or rest end,
  word = function(rest) return rest:match(WORDS[1]) or rest:match(WORDS[2]) or rest end,
}

---@param left c2l.View
---@param piece string
---@param cover string
local function insert(left, piece, cover)
  local lines = vim.split(piece, '\n', { plain = true })
  vim.cmd('let &g:undolevels = &g:undolevels') -- what was typed before stays a step of its own
  vim.api.nvim_buf_set_text(0, left.row, left.col, left.row, left.col + #cover, lines)
  local col = #lines == 1 and left.col + #piece or #lines[#lines]
  vim.api.nvim_win_set_cursor(0, { left.row + #lines, col })
end

---@param kind c2l.Piece
local function take(kind)
  local left = suggest.acceptable()
  if not left then
    return
  end
  local buf = vim.api.nvim_get_current_buf()
  local piece = PIECES[kind](left.rest)
  -- What would be left is in the buffer already: then the last piece takes it along.
  if #piece >= #left.rest - #left.cover then
    piece = left.rest
  end
  local whole = piece == left.rest
  insert(left, piece, whole and left.cover or '')
  local server, command = client.get(buf), left.candidate.command
  if server and command then
    local accepted = { id = command.arguments[1], chars = vim.fn.strchars(piece), partly = not whole }
    client.execute(server, command.command, { accepted })
  end
  if whole then
    suggest.taken()
  end
  status.event('C2lAccepted', { buf = buf, kind = kind, text = piece, whole = whole })
  suggest.update()
end

--- Accept; false if nothing is shown. Also right in an expression mapping, where the text cannot change at once.
---@param kind c2l.Piece
---@return boolean
function M.take(kind)
  if not suggest.acceptable() then
    return false
  end
  local ok, problem = pcall(take, kind)
  if not ok and tostring(problem):find('E565') then
    vim.schedule(function() take(kind) end)
  elseif not ok then
    error(problem, 0)
  end
  return true
end

return M
