--- The options of `setup`: defaults, validation, and the settings for the server.
local protocol = require('c2l.protocol')

local M = {}

---@class c2l.Keymaps
---@field accept? string|false accept the whole suggestion
---@field accept_word? string|false accept its next word
---@field accept_line? string|false accept its next line
---@field next? string|false show the next candidate; requests more if there is only one
---@field prev? string|false show the previous candidate
---@field dismiss? string|false hide the suggestion until the text changes
---@field trigger? string|false request suggestions explicitly

---@class c2l.Options
---@field settings? c2l.Settings settings of the server; the same keys as `c2l.*` in other editors
---@field filetypes? string[]|false file types for which the server is used; false: all
---@field root_markers? string[] a folder that contains one of these is a workspace folder
---@field cmd? string[]|fun(dispatchers: table): table command that starts the server, instead of the default
---@field keymaps? c2l.Keymaps|false insert-mode keys; each falls through while no suggestion is shown
---@field hide_on_popup? boolean hide the suggestion while a completion menu is open
---@field popup_visible? fun(): boolean whether a completion menu is open
---@field trusted? boolean false: files of the workspace folders are neither read nor indexed nor stored
---@field restarts? integer automatic restarts of a crashed server within three minutes

---@type c2l.Options
M.defaults = {
  settings = {},
  filetypes = { 'python' },
  root_markers = { '.git', 'pyproject.toml', 'setup.py', 'setup.cfg' },
  cmd = nil,
  keymaps = {
    accept = '<Tab>',
    accept_word = '<M-Right>',
    accept_line = '<M-C-Right>',
    next = '<M-]>',
    prev = '<M-[>',
    dismiss = '<C-]>',
    trigger = '<M-\\>',
  },
  hide_on_popup = true,
  popup_visible = function() return vim.fn.pumvisible() == 1 end,
  trusted = true,
  restarts = 3,
}

local TYPES = {
  settings = { 'table' },
  filetypes = { 'table', 'boolean' },
  root_markers = { 'table' },
  cmd = { 'table', 'function' },
  keymaps = { 'table', 'boolean' },
  hide_on_popup = { 'boolean' },
  popup_visible = { 'function' },
  trusted = { 'boolean' },
  restarts = { 'number' },
}

---@type c2l.Options
M.options = vim.deepcopy(M.defaults)

--- Whether `setup` was called. Otherwise only the LSP configuration of the server is used.
M.active = false

--- Set the options. Invalid ones keep their default and are returned as a list of messages.
---@param given? c2l.Options
---@return string[] problems
function M.set(given)
  local problems, options = {}, vim.deepcopy(M.defaults)
  for key, value in pairs(given or {}) do
    local types = TYPES[key]
    if not types then
      table.insert(problems, ('c2l: unknown option "%s".'):format(tostring(key)))
    elseif not vim.tbl_contains(types, type(value)) then
      table.insert(problems, ('c2l: option "%s" must be a %s.'):format(key, table.concat(types, ' or ')))
    elseif key == 'keymaps' and type(value) == 'table' then
      options.keymaps = M.keymaps(value, problems)
    else
      options[key] = value
    end
  end
  M.options, M.active = options, true
  return problems
end

---@param given table
---@param problems string[]
---@return c2l.Keymaps
function M.keymaps(given, problems)
  local keymaps = vim.deepcopy(M.defaults.keymaps) --[[@as c2l.Keymaps]]
  for action, lhs in pairs(given) do
    if keymaps[action] == nil then
      table.insert(problems, ('c2l: unknown key action "%s".'):format(tostring(action)))
    elseif type(lhs) ~= 'string' and lhs ~= false then
      table.insert(problems, ('c2l: the key of "%s" must be a string or false.'):format(action))
    else
      keymaps[action] = lhs
    end
  end
  return keymaps
end

--- Returns the settings that a workspace may also set: the result of `workspace/configuration`.
---@return c2l.Settings
function M.workspace_settings()
  local settings = vim.deepcopy(M.options.settings)
  for _, group in ipairs(protocol.MACHINE_GROUPS) do
    settings[group] = nil
  end
  for _, key in ipairs(protocol.TIGHTENED) do
    local group, name = unpack(vim.split(key, '.', { plain = true }))
    if settings[group] then
      settings[group][name] = nil
    end
  end
  return settings
end

--- Returns the settings that only the user may set, including the limits on what is read and stored. The server reads them
--- once, when it starts.
---@return c2l.Settings
function M.machine_settings()
  local settings = {}
  for _, group in ipairs(protocol.MACHINE_GROUPS) do
    settings[group] = vim.deepcopy(M.options.settings[group])
  end
  for _, key in ipairs(protocol.TIGHTENED) do
    local group, name = unpack(vim.split(key, '.', { plain = true }))
    local value = vim.tbl_get(M.options.settings, group, name)
    if value ~= nil then
      settings[group] = settings[group] or {}
      settings[group][name] = vim.deepcopy(value)
    end
  end
  return settings
end

return M
