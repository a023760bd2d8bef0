--- One server for all workspace folders: a model is large, so a second folder joins the server that runs already.
local launch = require('c2l.launch')

local M = {}

---@type table<integer, table[]> folders that wait until their client is initialized
local waiting = {}

---@param client vim.lsp.Client
---@param folder { uri: string, name: string }
local function announce(client, folder)
  require('c2l.client').notify(client, 'workspace/didChangeWorkspaceFolders', { event = { added = { folder }, removed = {} } })
end

--- Whether this client serves the configuration too; if so, its folder joins.
---@param client vim.lsp.Client
---@param spec table
---@return boolean
function M.join(client, spec)
  if client.name ~= launch.NAME or client.is_stopped(client) or client._is_stopping then
    return false
  end
  local root = spec.root_dir
  if not root then
    return true
  end
  local folder = { uri = vim.uri_from_fname(root), name = root }
  local folders = client.workspace_folders or {}
  for _, known in ipairs(folders) do
    if known.uri == folder.uri then
      return true
    end
  end
  table.insert(folders, folder)
  client.workspace_folders = folders
  if client.initialized then
    announce(client, folder)
  else
    waiting[client.id] = waiting[client.id] or {}
    table.insert(waiting[client.id], folder)
  end
  return true
end

--- The client is initialized: announce the folders that joined before.
---@param client vim.lsp.Client
function M.flush(client)
  for _, folder in ipairs(waiting[client.id] or {}) do
    announce(client, folder)
  end
  waiting[client.id] = nil
end

return M
