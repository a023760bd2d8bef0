--- Draws what is left of a suggestion after the cursor, as one extmark. Decides nothing.
local M = {}

local namespace = vim.api.nvim_create_namespace('c2l.ghost')
local MARK = 1
---@type integer? the buffer that has the mark
local drawn

---@param view c2l.View
---@return string[] lines
---@return integer over how many cells after the cursor the first line paints over
local function layout(view)
  local lines = vim.split(view.rest, '\n', { plain = true })
  if view.cover == '' then
    return lines, 0
  elseif #lines == 1 then
    -- The end of the text stands in the buffer already; only what comes before it is new to the eye.
    return { view.rest:sub(1, #view.rest - #view.cover) }, 0
  end
  return lines, vim.fn.strdisplaywidth(view.cover)
end

--- Show it, in place of what is shown now.
---@param buf integer
---@param view c2l.View
---@param annotation? string
function M.draw(buf, view, annotation)
  if drawn and drawn ~= buf then
    M.clear()
  end
  local lines, over = layout(view)
  local first = lines[1] .. (' '):rep(over - vim.fn.strdisplaywidth(lines[1]))
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
    virt_text_pos = over > 0 and 'overlay' or 'inline',
    virt_lines = #below > 0 and below or nil,
    hl_mode = 'combine',
    undo_restore = false,
    strict = false,
  })
  drawn = buf
end

--- Show nothing.
function M.clear()
  if drawn and vim.api.nvim_buf_is_valid(drawn) then
    vim.api.nvim_buf_del_extmark(drawn, namespace, MARK)
  end
  drawn = nil
end

--- What is on the screen now, without the annotation; nil if nothing is.
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
