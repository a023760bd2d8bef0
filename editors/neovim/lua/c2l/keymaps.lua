--- The insert-mode keys. While no suggestion is shown, a key keeps its previous mapping or meaning.
local M = {}

---@type table<string, table|false> the previous mapping by key, false if there was none
local previous = {}

local function actions()
  local suggest = require('c2l.suggest')
  return {
    accept = suggest.is_visible,
    accept_word = suggest.is_visible,
    accept_line = suggest.is_visible,
    next = suggest.is_visible,
    prev = suggest.is_visible,
    dismiss = suggest.is_visible,
    trigger = function() return require('c2l.client').get(vim.api.nvim_get_current_buf()) ~= nil end,
  }
end

---@param action string
local function plug(action) return ('<Plug>(c2l-%s)'):format((action:gsub('_', '-'))) end

---@param lhs string
---@return table?
local function mapping_of(lhs)
  local raw = vim.keycode(lhs)
  for _, map in ipairs(vim.api.nvim_get_keymap('i')) do
    if map.lhsraw == raw or map.lhsrawalt == raw then
      return map
    end
  end
end

--- Copy the previous mapping of `lhs` to `name`. Without a mapping, `name` becomes the plain key.
---@param lhs string
---@param name string
local function save_mapping(lhs, name)
  local map = mapping_of(lhs)
  previous[lhs] = map or false
  if not map then
    vim.keymap.set('i', name, lhs, { desc = 'c2l: the plain key' })
    return
  end
  local copy = vim.tbl_extend('force', map, { lhs = name, lhsraw = vim.keycode(name), buffer = 0 })
  copy.lhsrawalt = nil
  vim.fn.mapset('i', false, copy)
end

--- Remove the keys and restore the previous mappings.
function M.remove()
  for lhs, map in pairs(previous) do
    pcall(vim.keymap.del, 'i', lhs)
    if map then
      vim.fn.mapset('i', false, map)
    end
  end
  previous = {}
end

--- Set the keys in place of those that were set before.
---@param keymaps c2l.Keymaps|false
function M.set(keymaps)
  M.remove()
  for action, applies in pairs(actions()) do
    local lhs = keymaps and keymaps[action]
    if lhs then
      local otherwise = ('<Plug>(c2l-otherwise-%s)'):format(action)
      save_mapping(lhs, otherwise)
      vim.keymap.set('i', lhs, function() return applies() and plug(action) or otherwise end, {
        expr = true,
        remap = true,
        silent = true,
        desc = 'c2l: ' .. action:gsub('_', ' '),
      })
    end
  end
end

return M
