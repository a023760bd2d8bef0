--- Connects the renderer to the buffers that a server is attached to.
local launch = require('c2l.launch')

local M = {}

local group = vim.api.nvim_create_augroup('c2l', {})
local bound = vim.api.nvim_create_augroup('c2l.buffers', {})

---@param buf integer
local function bind(buf)
  local suggest = require('c2l.suggest')
  vim.api.nvim_clear_autocmds({ group = bound, buffer = buf })
  local function on(events, run) vim.api.nvim_create_autocmd(events, { group = bound, buffer = buf, callback = run }) end
  on({ 'CursorMovedI', 'TextChangedI', 'TextChangedP' }, function() suggest.update() end)
  on('BufEnter', function() require('c2l.status').refresh(buf) end)
  on({ 'BufEnter', 'CursorMoved' }, function() require('c2l.cursor').rests() end)
  on('InsertEnter', function() vim.schedule(suggest.enter) end) -- the mode changes after this event
  on('CompleteDone', function() vim.schedule(suggest.update) end) -- the menu closes after this event
  on({ 'InsertLeave', 'BufLeave', 'BufUnload' }, function() suggest.leave() end)
end

--- Returns whether another client of the server is attached to the buffer, as happens during a restart.
---@param client vim.lsp.Client
---@param buf integer
local function is_replaced(client, buf)
  for _, other in ipairs(vim.lsp.get_clients({ name = launch.NAME, bufnr = buf, _uninitialized = true })) do
    if other.id ~= client.id then
      return true
    end
  end
  return false
end

--- Connect buffers when the server attaches to them, from now on.
function M.follow()
  vim.api.nvim_clear_autocmds({ group = group })
  vim.api.nvim_create_autocmd('LspAttach', {
    group = group,
    callback = function(event)
      local client = vim.lsp.get_client_by_id(event.data.client_id)
      if not client or client.name ~= launch.NAME then
        return
      end
      bind(event.buf)
      require('c2l.switch').attached(event.buf)
      require('c2l.status').refresh(event.buf)
      require('c2l.cursor').rests()
      if vim.lsp.inline_completion then
        -- Neovim's renderer would show the same text twice. It stays enabled for other servers.
        vim.lsp.inline_completion.enable(false, { client_id = client.id })
      end
      vim.schedule(require('c2l.suggest').restart)
    end,
  })
  vim.api.nvim_create_autocmd('LspDetach', {
    group = group,
    callback = function(event)
      local client = vim.lsp.get_client_by_id(event.data.client_id)
      if client and client.name == launch.NAME and not is_replaced(client, event.buf) then
        vim.api.nvim_clear_autocmds({ group = bound, buffer = event.buf })
        require('c2l.suggest').leave()
        require('c2l.supervisor').reattach_later(event.buf)
      end
    end,
  })
end

return M
