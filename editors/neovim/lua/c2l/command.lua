--- The command `:C2L {sub}`. The table `subs` defines the subcommands.
local client = require('c2l.client')
local protocol = require('c2l.protocol')
local report = require('c2l.report')

local M = {}

---@class c2l.Sub
---@field run fun(words: string[])
---@field text string
---@field words? string[] completions of its first argument

---@param message string
local function inform(message) vim.api.nvim_echo({ { 'c2l: ' .. message } }, false, {}) end

---@param message string
local function warn(message) vim.notify('c2l: ' .. message, vim.log.levels.WARN) end

---@return vim.lsp.Client?
local function server()
  local found = client.get(vim.api.nvim_get_current_buf()) or client.get()
  if not found then
    warn('No server is running. Run :checkhealth c2l to find the cause.')
  end
  return found
end

---@param method string
---@param params table
---@param done fun(result: any)
local function request(method, params, done)
  local to = server()
  if not to then
    return
  end
  client.request(to, method, params, function(err, result)
    if err then
      return warn(err.message)
    end
    done(result)
  end)
end

---@param command string
---@param argument table
---@param done fun(result: any)
local function execute(command, argument, done)
  request('workspace/executeCommand', { command = command, arguments = { argument } }, done)
end

local function here() return { textDocument = { uri = vim.uri_from_bufnr(0) } } end

---@param words string[]
---@return c2l.Where?
local function where(words) return words[1] == 'buffer' and { buf = 0 } or nil end

local ADAPTER = {
  info = function() request(protocol.Method.ADAPTER_INFO, here(), function(info) report.show('adapter', report.adapter(info)) end) end,
  regenerate = function()
    request(protocol.Method.ADAPTER_REGENERATE, here(), function() inform('The adapter is being rebuilt.') end)
  end,
  reset = function(words)
    local question = 'Delete the adapter of this folder and everything learned from it? Your files are not changed.'
    if words[1] == 'force' or vim.fn.confirm(question, '&Delete\n&Keep', 2) == 1 then
      request(protocol.Method.ADAPTER_RESET, here(), function() inform('The adapter was deleted.') end)
    end
  end,
  deepen = function(words)
    local cancel = words[1] == 'cancel'
    request(protocol.Method.ADAPTER_DEEPEN, vim.tbl_extend('error', here(), { cancel = cancel }), function()
      inform(cancel and 'Fine-tuning was stopped; the adapter is unchanged.' or 'Fine-tuning runs in the background; :C2L adapter shows its progress.')
    end)
  end,
  toggle = function()
    request(protocol.Method.ADAPTER_SET_ENABLED, here(), function(info)
      require('c2l.switch').adapter(info.folder, info.enabled)
      inform(info.enabled and 'The adapter is on.' or 'The adapter is off; the base model is in use.')
    end)
  end,
  export = function(words)
    if not words[1] then
      return warn('Usage: :C2L adapter export {folder}')
    end
    local out = vim.fn.fnamemodify(vim.fn.expand(words[1]), ':p')
    local params = vim.tbl_extend('error', here(), { out = out })
    request(protocol.Method.ADAPTER_EXPORT, params, function(done) inform(('Exported to %s with rank %d.'):format(done.out, done.rank)) end)
  end,
}

local MODEL = {
  load = function() request(protocol.Method.MODEL_LOAD, vim.empty_dict(), function() inform('The model is loading.') end) end,
  unload = function() request(protocol.Method.MODEL_UNLOAD, vim.empty_dict(), function() inform('The model was unloaded.') end) end,
  select = function(words)
    local function set(id)
      if id and id ~= '' then
        require('c2l').configure({ model = { id = id, path = '' } }) -- a path would take precedence over the id
      end
    end
    if words[1] then
      return set(words[1])
    end
    vim.ui.input({ prompt = 'c2l model: ', default = (require('c2l').status().model or 'auto') }, set)
  end,
}

---@param name string
---@param rows table<string, fun(words: string[])>
local function nested(name, rows)
  return function(words)
    local row = rows[words[1] or (rows.info and 'info' or '')]
    if not row then
      return warn(('Usage: :C2L %s {%s}'):format(name, table.concat(vim.fn.sort(vim.tbl_keys(rows)), '|')))
    end
    row(vim.list_slice(words, 2))
  end
end

---@type table<string, c2l.Sub>
M.subs = {
  status = {
    text = 'state of server and adapter, and why nothing is shown',
    run = function()
      local buf = vim.api.nvim_get_current_buf()
      require('c2l').status(nil, function(status)
        require('c2l.status').why(buf, function(sentence) report.show('status', report.status(status, sentence)) end)
      end)
    end,
  },
  statistics = {
    text = 'counts of completions on this machine; "reset" sets them to zero',
    words = { 'reset' },
    run = function(words)
      require('c2l').statistics(function(counts)
        report.show('statistics', counts and report.statistics(counts) or { 'No server is running.' })
      end, words[1] == 'reset')
    end,
  },
  report = {
    text = 'status and statistics for a bug report',
    run = function()
      execute(protocol.Command.SHOW_REPORT, here(), function(result)
        report.show('report', vim.split(vim.inspect(result), '\n'))
      end)
    end,
  },
  explain = {
    text = 'details of the last shown suggestion',
    run = function()
      local id = require('c2l.suggest').id()
      if not id then
        return warn('No suggestion has been shown yet.')
      end
      request(protocol.Method.EXPLAIN, { id = id }, function(result)
        report.show('explain', vim.split(vim.inspect(result), '\n'))
      end)
    end,
  },
  enable = { text = 'turn suggestions on; "buffer": in this buffer', words = { 'buffer' }, run = function(words) require('c2l').enable(where(words)) end },
  disable = { text = 'turn suggestions off; "buffer": in this buffer', words = { 'buffer' }, run = function(words) require('c2l').disable(where(words)) end },
  toggle = { text = 'turn suggestions on or off; "buffer": in this buffer', words = { 'buffer' }, run = function(words) require('c2l').toggle(where(words)) end },
  language = {
    text = 'turn suggestions on or off for the language of this buffer',
    run = function()
      execute(protocol.Command.TOGGLE_LANGUAGE, { uri = vim.uri_from_bufnr(0) }, function(result)
        require('c2l.switch').language(result.language, result.enabled)
        inform(('Completions are %s for %s.'):format(result.enabled and 'on' or 'off', result.language))
        require('c2l.suggest').restart()
      end)
    end,
  },
  snooze = {
    text = 'turn suggestions off for some minutes (default 5); 0 ends it',
    run = function(words)
      local minutes = tonumber(words[1]) or 5
      execute(protocol.Command.SNOOZE, { minutes = minutes }, function(result)
        require('c2l.switch').snoozed(result['until'])
        inform(minutes > 0 and ('Suggestions are off for %g minutes.'):format(minutes) or 'Suggestions are on.')
      end)
    end,
  },
  trigger = {
    text = 'request a suggestion now, in Insert mode',
    run = function()
      if server() and not require('c2l').trigger() then
        warn('Suggestions are shown in Insert mode only. Map a key to `trigger` to request one there.')
      end
    end,
  },
  adapter = {
    text = 'info, regenerate, deepen, deepen cancel, reset, reset force, toggle, export {folder}',
    words = vim.fn.sort(vim.tbl_keys(ADAPTER)),
    run = nested('adapter', ADAPTER),
  },
  model = {
    text = 'load, unload, select {id}',
    words = vim.fn.sort(vim.tbl_keys(MODEL)),
    run = nested('model', MODEL),
  },
  restart = { text = 'restart the server', run = function() require('c2l').restart() end },
  log = {
    text = "Neovim's log of language servers",
    run = function() vim.cmd.tabedit(vim.fn.fnameescape(require('vim.lsp.log').get_filename())) end,
  },
  health = { text = 'check the installation', run = function() vim.cmd.checkhealth('c2l') end },
  menu = { text = 'choose a subcommand from a list', run = function() M.menu() end },
}

--- Choose a subcommand from a list.
function M.menu()
  local names = vim.tbl_filter(function(name) return name ~= 'menu' end, vim.tbl_keys(M.subs))
  table.sort(names)
  vim.ui.select(names, {
    prompt = 'C2L',
    format_item = function(name) return ('%-10s  %s'):format(name, M.subs[name].text) end,
  }, function(name)
    if name then
      M.run({ name })
    end
  end)
end

---@param words string[]
function M.run(words)
  local name = words[1] or 'status'
  local sub = M.subs[name]
  if not sub then
    return warn(('Unknown subcommand: %s'):format(name))
  end
  sub.run(vim.list_slice(words, 2))
end

---@param lead string
---@param line string
---@return string[]
function M.complete(lead, line)
  local words = vim.split(vim.trim(line:gsub('^.-C2L!?%s*', '')), '%s+', { trimempty = true })
  local at = #words + (lead == '' and 1 or 0)
  local choices = {}
  if at <= 1 then
    choices = vim.tbl_keys(M.subs)
  elseif at == 2 and M.subs[words[1]] then
    choices = M.subs[words[1]].words or {}
  elseif at == 3 and words[1] == 'adapter' and words[2] == 'export' then
    return vim.fn.getcompletion(lead, 'dir')
  elseif at == 3 and words[1] == 'adapter' and words[2] == 'deepen' then
    choices = { 'cancel' }
  elseif at == 3 and words[1] == 'adapter' and words[2] == 'reset' then
    choices = { 'force' }
  end
  choices = vim.tbl_filter(function(one) return vim.startswith(one, lead) end, choices)
  table.sort(choices)
  return choices
end

return M
