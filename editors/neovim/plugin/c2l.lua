if vim.g.loaded_c2l then
  return
end
vim.g.loaded_c2l = true

local function define_highlights()
  local core = vim.fn.hlexists('ComplHint') == 1
  vim.api.nvim_set_hl(0, 'C2lSuggestion', { link = core and 'ComplHint' or 'Comment', default = true })
  vim.api.nvim_set_hl(0, 'C2lReplaced', { link = 'DiffDelete', default = true })
  vim.api.nvim_set_hl(0, 'C2lAnnotation', { link = core and 'ComplHintMore' or 'NonText', default = true })
end
define_highlights()
vim.api.nvim_create_autocmd('ColorScheme', {
  group = vim.api.nvim_create_augroup('c2l.highlights', {}),
  callback = define_highlights,
})

for _, action in ipairs({ 'accept', 'accept_word', 'accept_line', 'next', 'prev', 'dismiss', 'trigger' }) do
  local name = ('<Plug>(c2l-%s)'):format((action:gsub('_', '-')))
  local call = ('<Cmd>lua require("c2l").%s()<CR>'):format(action)
  vim.keymap.set('i', name, call, { silent = true, desc = 'c2l: ' .. action:gsub('_', ' ') })
end
vim.keymap.set({ 'n', 'i' }, '<Plug>(c2l-toggle)', '<Cmd>lua require("c2l").toggle()<CR>', { desc = 'c2l: toggle' })

vim.api.nvim_create_user_command('C2L', function(call) require('c2l.command').run(call.fargs) end, {
  nargs = '*',
  desc = 'c2l: status, on and off, adapter, model, server',
  complete = function(lead, line) return require('c2l.command').complete(lead, line) end,
})

-- Setting `vim.g.c2l = { ... }` before start-up is equivalent to `require('c2l').setup { ... }`.
if type(vim.g.c2l) == 'table' then
  require('c2l').setup(vim.g.c2l)
end
