--- One suggestion: candidate texts for a position, and the rest of each after the user typed its start. Draws nothing.
local client = require('c2l.client')

local M = {}

---@class c2l.Candidate
---@field text string text to insert at the position, with \n between lines
---@field replaced string text after the position that `text` contains again and therefore replaces
---@field command? table

---@class c2l.View the rest of the chosen candidate at a cursor position
---@field row integer
---@field col integer
---@field rest string the text that is not inserted yet, never empty
---@field replaced string text after the cursor that `rest` replaces
---@field candidate c2l.Candidate
---@field position integer number of the candidate among the matching ones
---@field count integer number of matching candidates

---@class c2l.Suggestion
---@field buf integer
---@field mark integer
---@field before string the line before the position
---@field after string the line after the position
---@field candidates c2l.Candidate[]
---@field index integer index of the chosen candidate
---@field cycled boolean whether the user has switched between candidates
---@field complete boolean whether all candidates were requested
local Suggestion = {}
Suggestion.__index = Suggestion

local namespace = vim.api.nvim_create_namespace('c2l.position')

--- Returns an item as a candidate for the cursor, or nil if it would change text before the cursor.
---@param item table
---@param line string
---@param col integer
---@param encoding string
---@return c2l.Candidate?
local function candidate(item, line, col, encoding)
  local text = type(item.insertText) == 'table' and item.insertText.value or item.insertText
  text = text:gsub('\r\n?', '\n')
  local first, last = col, col
  if item.range then
    first = client.byte(line, item.range.start.character, encoding)
    last = client.byte(line, item.range['end'].character, encoding)
  end
  local head = line:sub(first + 1, col)
  if first > col or last < col or not vim.startswith(text, head) or text == head then
    return nil
  end
  return { text = text:sub(#head + 1), replaced = line:sub(col + 1, last), command = item.command }
end

--- Returns a suggestion with the server's items, or nil if none of them can be shown.
---@param buf integer
---@param row integer
---@param col integer
---@param items table[]
---@param encoding string
---@return c2l.Suggestion?
function M.new(buf, row, col, items, encoding)
  local line = vim.api.nvim_buf_get_lines(buf, row, row + 1, false)[1] or ''
  local candidates = {}
  for _, item in ipairs(items) do
    table.insert(candidates, candidate(item, line, col, encoding))
  end
  if #candidates == 0 then
    return nil
  end
  return setmetatable({
    buf = buf,
    mark = vim.api.nvim_buf_set_extmark(buf, namespace, row, col, { right_gravity = false }),
    before = line:sub(1, col),
    after = line:sub(col + 1),
    candidates = candidates,
    index = 1,
    cycled = false,
    complete = false,
  }, Suggestion)
end

--- Returns the text typed since the request and the text that a pairing plugin added after the cursor, or nil if the
--- position no longer exists.
---@param row integer
---@param col integer
---@return string? typed
---@return string? added
function Suggestion:typed(row, col)
  local position = vim.api.nvim_buf_get_extmark_by_id(self.buf, namespace, self.mark, {})
  if not position[1] or row < position[1] or (row == position[1] and col < position[2]) then
    return nil
  end
  local lines = vim.api.nvim_buf_get_lines(self.buf, position[1], row + 1, false)
  local after = lines[#lines]:sub(col + 1)
  if lines[1]:sub(1, position[2]) ~= self.before or not vim.endswith(after, self.after) then
    return nil
  end
  lines[#lines] = lines[#lines]:sub(1, col)
  lines[1] = lines[1]:sub(position[2] + 1)
  return table.concat(lines, '\n'), after:sub(1, #after - #self.after)
end

--- Returns the rest of every candidate that starts with the typed text.
---@param row integer
---@param col integer
---@return { index: integer, rest: string, replaced: string }[]
function Suggestion:matching(row, col)
  local typed, added = self:typed(row, col)
  local found = {}
  for index, one in ipairs(typed and self.candidates or {}) do
    local rest, replaced = one.text:sub(#typed + 1), added .. one.replaced
    local fits = replaced == '' or (rest ~= replaced and vim.endswith(rest, replaced))
    if rest ~= '' and fits and vim.startswith(one.text, typed) then
      table.insert(found, { index = index, rest = rest, replaced = replaced })
    end
  end
  return found
end

--- Returns the rest of the chosen candidate, or of the next matching one; nil if none matches.
---@param row integer
---@param col integer
---@return c2l.View?
function Suggestion:view(row, col)
  local found = self:matching(row, col)
  if #found == 0 then
    return nil
  end
  local position = 1
  for at = #found, 1, -1 do
    if found[at].index >= self.index then
      position = at
    end
  end
  local chosen = found[position]
  self.index = chosen.index
  return {
    row = row,
    col = col,
    rest = chosen.rest,
    replaced = chosen.replaced,
    candidate = self.candidates[chosen.index],
    position = position,
    count = #found,
  }
end

--- Choose another of the matching candidates.
---@param row integer
---@param col integer
---@param step integer
function Suggestion:cycle(row, col, step)
  local found = self:matching(row, col)
  self.cycled = true
  for at, one in ipairs(found) do
    if one.index == self.index then
      self.index = found[(at - 1 + step) % #found + 1].index
      return
    end
  end
end

--- Returns `other` with the rest of this suggestion as its first candidate and without duplicates of it.
---@param other c2l.Suggestion candidates requested at the cursor
---@param view c2l.View the rest of this suggestion at the cursor
---@return c2l.Suggestion merged
function Suggestion:merged(other, view)
  local candidates = { { text = view.rest, replaced = view.replaced, command = view.candidate.command } }
  for _, one in ipairs(other.candidates) do
    if one.text ~= view.rest then
      table.insert(candidates, one)
    end
  end
  other.candidates, other.complete, other.cycled = candidates, true, true
  self:close()
  return other
end

--- Delete the extmark of the position.
function Suggestion:close()
  if vim.api.nvim_buf_is_valid(self.buf) then
    vim.api.nvim_buf_del_extmark(self.buf, namespace, self.mark)
  end
end

return M
