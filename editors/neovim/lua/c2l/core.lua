--- Support for Neovim's `vim.lsp.inline_completion` (0.12) without this plugin's renderer. `:help c2l-core`
local M = {}

--- Extends the range of an item to the cursor if the text typed since the request is the start of the item, so that
--- accepting the item does not insert that text twice.
---@param item vim.lsp.inline_completion.Item
---@return vim.lsp.inline_completion.Item
function M.on_accept(item)
  local range, at = item.range, vim.api.nvim_win_get_cursor(0)
  local row, col = at[1] - 1, at[2]
  if range and range.end_row == row and col > range.end_col and type(item.insert_text) == 'string' then
    local typed = vim.api.nvim_buf_get_text(0, row, range.start_col, row, col, {})[1]
    if vim.startswith(item.insert_text, typed) then
      item.range = vim.range(vim.api.nvim_get_current_buf(), range.start_row, range.start_col, row, col)
    end
  end
  return item
end

return M
