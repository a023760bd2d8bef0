--- Draws the remaining text of a suggestion after the cursor, as one extmark.
local M = {}

local namespace = vim.api.nvim_create_namespace('c2l.ghost')
local MARK, REPLACED = 1, 2
---@type integer? the buffer that contains the extmark
local drawn

---@param view c2l.View
---@return string[] lines
---@return integer overlay number of cells after the cursor that the first line covers
local function layout(view)
  local lines = vim.split(view.rest, '\n', { plain = true })
  if view.replaced == '' then
    return lines, 0
  elseif #lines == 1 then
    -- The buffer already contains the end of the text, so only the part before it is drawn.
    return { view.rest:sub(1, #view.rest - #view.replaced) }, 0
  end
  return lines, vim.fn.strdisplaywidth(view.replaced)
end

--- Show a suggestion in place of the previous one.
---@param buf integer
---@param view c2l.View
---@param annotation? string
function M.draw(buf, view, annotation)
  if drawn and drawn ~= buf then
    M.clear()
  end
  local lines, overlay = layout(view)
  local first = lines[1] .. (' '):rep(overlay - vim.fn.strdisplaywidth(lines[1]))
  local chunks = { { first, 'C2lSuggestion' } }
  local below = {}
  for index = 2, #lines do
    below[index - 1] = { { lines[index], 'C2lSuggestion' } }
  end
  if annotation then
    table.insert(below[#below] or chunks, { annotation, 'C2lAnnotation' })
  end
  vim.api.nvim_buf_set_extmark(buf, namespace, view.row, view.col, {
    id = MARK,
    virt_text = chunks,
    virt_text_pos = overlay > 0 and 'overlay' or 'inline',
    virt_lines = #below > 0 and below or nil,
    hl_mode = 'combine',
    undo_restore = false,
    strict = false,
  })
  drawn = buf
end

--- Show a replacement: the new text behind the old one, which is marked.
---@param replacement c2l.Replacement
function M.draw_replacement(replacement)
  M.clear()
  vim.api.nvim_buf_set_extmark(replacement.buf, namespace, replacement.row, replacement.last, {
    id = MARK,
    virt_text = { { ' → ' .. replacement.text, 'C2lSuggestion' } },
    virt_text_pos = 'inline',
    hl_mode = 'combine',
    undo_restore = false,
    strict = false,
  })
  vim.api.nvim_buf_set_extmark(replacement.buf, namespace, replacement.row, replacement.first, {
    id = REPLACED,
    end_col = replacement.last,
    hl_group = 'C2lReplaced',
    undo_restore = false,
    strict = false,
  })
  drawn = replacement.buf
end

--- Remove the ghost text.
function M.clear()
  if drawn and vim.api.nvim_buf_is_valid(drawn) then
    vim.api.nvim_buf_del_extmark(drawn, namespace, MARK)
    vim.api.nvim_buf_del_extmark(drawn, namespace, REPLACED)
  end
  drawn = nil
end

--- Returns the shown text without annotation, or nil if none is shown.
---@return string?
function M.text()
  if not drawn or not vim.api.nvim_buf_is_valid(drawn) then
    return nil
  end
  local mark = vim.api.nvim_buf_get_extmark_by_id(drawn, namespace, MARK, { details = true })[3]
  if not mark then
    return nil
  end
  local lines = { mark.virt_text[1][1] }
  for _, line in ipairs(mark.virt_lines or {}) do
    table.insert(lines, line[1][1])
  end
  return table.concat(lines, '\n')
end

return M
