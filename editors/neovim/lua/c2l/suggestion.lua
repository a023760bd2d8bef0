--- One suggestion: candidate texts for a place, and what is left of them as the user types along. Draws nothing.
local client = require('c2l.client')

local M = {}

---@class c2l.Candidate
---@field text string what the place gets, with \n between lines
---@field cover string the head of the text after the cursor that `text` writes again and replaces
---@field command? table

---@class c2l.View what is left of the chosen candidate at a cursor
---@field row integer
---@field col integer
---@field rest string the text still to be inserted, never empty
---@field cover string text after the cursor that it replaces
---@field candidate c2l.Candidate
---@field position integer which of the candidates that agree
---@field count integer how many agree

---@class c2l.Suggestion
---@field buf integer
---@field mark integer
---@field before string the line up to the place
---@field after string the line from the place on
---@field candidates c2l.Candidate[]
---@field index integer the chosen candidate
---@field cycled boolean whether the user has looked at other candidates
---@field complete boolean whether all candidates were asked for
local Suggestion = {}
Suggestion.__index = Suggestion

local namespace = vim.api.nvim_create_namespace('c2l.place')

--- An item as a candidate for the cursor. Nil if it would change what stands before the cursor.
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
  return { text = text:sub(#head + 1), cover = line:sub(col + 1, last), command = item.command }
end

--- A suggestion out of the server's items; nil if none of them can be shown here.
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

--- What was typed since, and what an editor's own pairing has put after the cursor. Nil if the place is gone.
---@param row integer
---@param col integer
---@return string? typed
---@return string? added
function Suggestion:typed(row, col)
  local place = vim.api.nvim_buf_get_extmark_by_id(self.buf, namespace, self.mark, {})
  if not place[1] or row < place[1] or (row == place[1] and col < place[2]) then
    return nil
  end
  local lines = vim.api.nvim_buf_get_lines(self.buf, place[1], row + 1, false)
  local after = lines[#lines]:sub(col + 1)
  if lines[1]:sub(1, place[2]) ~= self.before or not vim.endswith(after, self.after) then
    return nil
  end
  lines[#lines] = lines[#lines]:sub(1, col)
  lines[1] = lines[1]:sub(place[2] + 1)
  return table.concat(lines, '\n'), after:sub(1, #after - #self.after)
end

--- What is left at a cursor of every candidate that agrees with what was typed.
---@param row integer
---@param col integer
---@return { index: integer, rest: string, cover: string }[]
function Suggestion:agreeing(row, col)
  local typed, added = self:typed(row, col)
  local found = {}
  for index, one in ipairs(typed and self.candidates or {}) do
    local rest, cover = one.text:sub(#typed + 1), added .. one.cover
    local fits = cover == '' or (rest ~= cover and vim.endswith(rest, cover))
    if rest ~= '' and fits and vim.startswith(one.text, typed) then
      table.insert(found, { index = index, rest = rest, cover = cover })
    end
  end
  return found
end

--- What is left at a cursor of the chosen candidate, or of the next one that agrees.
---@param row integer
---@param col integer
---@return c2l.View?
function Suggestion:view(row, col)
  local found = self:agreeing(row, col)
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
    cover = chosen.cover,
    candidate = self.candidates[chosen.index],
    position = position,
    count = #found,
  }
end

--- Choose another of the candidates that agree at a cursor.
---@param row integer
---@param col integer
---@param step integer
function Suggestion:cycle(row, col, step)
  local found = self:agreeing(row, col)
  self.cycled = true
  for at, one in ipairs(found) do
    if one.index == self.index then
      self.index = found[(at - 1 + step) % #found + 1].index
      return
    end
  end
end

--- More candidates for the same place, after those that are there. Doubles are left out.
---@param other c2l.Suggestion made at the cursor now
---@param view c2l.View what is left of this one there
---@return c2l.Suggestion merged
function Suggestion:merged(other, view)
  local kept = { { text = view.rest, cover = view.cover, command = view.candidate.command } }
  for _, one in ipairs(other.candidates) do
    if one.text ~= view.rest then
      table.insert(kept, one)
    end
  end
  other.candidates, other.complete, other.cycled = kept, true, true
  self:close()
  return other
end

--- Forget the place.
function Suggestion:close()
  if vim.api.nvim_buf_is_valid(self.buf) then
    vim.api.nvim_buf_del_extmark(self.buf, namespace, self.mark)
  end
end

return M
