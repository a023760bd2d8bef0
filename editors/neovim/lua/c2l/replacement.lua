--- One suggested replacement of text on the cursor's line, which is not an insertion at the cursor. Draws nothing.
local client = require('c2l.client')

local M = {}

---@class c2l.Replacement
---@field buf integer
---@field tick integer the state of the buffer for which it was suggested
---@field row integer
---@field first integer byte column where the replaced text starts
---@field last integer byte column behind it
---@field text string
local Replacement = {}
Replacement.__index = Replacement

--- Returns an item as a replacement; nil if it is none on this line. Items with a command come from the model.
---@param buf integer
---@param row integer
---@param item? table
---@param encoding string
---@return c2l.Replacement?
function M.new(buf, row, item, encoding)
  local range = item and item.range
  if not range or item.command or type(item.insertText) ~= 'string' or item.insertText:find('[\r\n]') then
    return nil
  end
  if range.start.line ~= row or range['end'].line ~= row then
    return nil
  end
  local line = vim.api.nvim_buf_get_lines(buf, row, row + 1, false)[1] or ''
  local first = client.byte(line, range.start.character, encoding)
  local last = client.byte(line, range['end'].character, encoding)
  if first >= last or line:sub(first + 1, last) == item.insertText then
    return nil
  end
  return setmetatable({
    buf = buf,
    tick = vim.api.nvim_buf_get_changedtick(buf),
    row = row,
    first = first,
    last = last,
    text = item.insertText,
  }, Replacement)
end

--- Returns whether it applies to a row of a buffer, whose text has not changed since.
---@param buf integer
---@param row integer
function Replacement:applies(buf, row)
  return self.buf == buf and self.row == row and self.tick == vim.api.nvim_buf_get_changedtick(buf)
end

--- Replace the text, as one undo step, and move the cursor behind the new text.
function Replacement:apply()
  vim.cmd('let &g:undolevels = &g:undolevels') -- ends the undo step of the text that was typed before
  vim.api.nvim_buf_set_text(self.buf, self.row, self.first, self.row, self.last, { self.text })
  vim.api.nvim_win_set_cursor(0, { self.row + 1, self.first + #self.text })
end

return M
