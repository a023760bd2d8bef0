--- One server for all workspace folders, because each server loads the model. New folders join the running server.
local launch = require('c2l.launch')

local M = {}

---@type table<integer, table[]> folders to announce once their client is initialized, by client
local pending = {}

---@param client vim.lsp.Client
---@param folder { uri: string, name: string }
local function announce(client, folder)
  require('c2l.client').notify(client, 'workspace/didChangeWorkspaceFolders', { event = { added = { folder }, removed = {} } })
end

--- Add the folder of `spec` to a client. Returns false if the client is not a running client of this server.
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
    pending[client.id] = pending[client.id] or {}
    table.insert(pending[client.id], folder)
  end
  return true
end

--- Announce the folders that joined before the client was initialized.
---@param client vim.lsp.Client
function M.flush(client)
  for _, folder in ipairs(pending[client.id] or {}) do
    announce(client, folder)
  end
  pending[client.id] = nil
end

return M
