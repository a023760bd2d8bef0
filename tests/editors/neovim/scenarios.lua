-- What a user does and what must be seen. Each begins with its planted fault: with it the scenario must fail.
-- The fake engine completes `word` with `_word_g1_0()`: the word, the adapter's generation, the candidate's number.
local d = require('drive')
local S = {}

local WRONG_TEXT = [[
  local suggestion = require('c2l.suggestion')
  local new = suggestion.new
  suggestion.new = function(buf, row, col, items, encoding)
    items = vim.deepcopy(items)
    for _, item in ipairs(items) do item.insertText = item.insertText:gsub('%w', 'x', 1) end
    return new(buf, row, col, items, encoding)
  end
]]

--- The server's counts with the adapter, once one of them is as wanted.
local function counted(name, want)
  d.wait(([[
    require('c2l').statistics(function(all) _G.counts = all.withAdapter end)
    return _G.counts and _G.counts[%q] == %d
  ]]):format(name, want))
  return d.lua('return _G.counts')
end

function S.accept()
  local path = d.open({ '# demo', '' })
  d.plant(WRONG_TEXT)
  d.listen('C2lShown')
  d.listen('C2lAccepted')
  d.keys('Gialpha')
  d.shown('_alpha_g1_0()')
  d.equal(d.lua('return require("c2l").is_visible()'), true)
  d.keys('<Tab>')
  d.wait('return vim.fn.line("$") == 2 and vim.fn.getline(2) == "alpha_alpha_g1_0()"')
  d.equal(d.lua('return vim.fn.col(".")'), 19, 'cursor after the text')
  d.keys('<Esc>:write<CR>')
  d.wait('return not vim.bo.modified')
  d.equal(vim.fn.readfile(path), { '# demo', 'alpha_alpha_g1_0()' }, 'file on disk')
  local events = d.lua('return _G.events')
  d.equal(events[1].name, 'C2lShown')
  d.equal(events[1].data.text, '_alpha_g1_0()')
  local accepted = vim.tbl_filter(function(one) return one.name == 'C2lAccepted' end, events)
  d.equal({ accepted[1].data.kind, accepted[1].data.text, accepted[1].data.whole }, { 'all', '_alpha_g1_0()', true })
  d.equal(counted('accepted', 1).acceptedChars, 13, 'the server counts one acceptance')
  d.keys('<Esc>')
  d.lua('vim.cmd("C2L statistics")')
  d.wait('return vim.bo.filetype == "c2l"')
  local told = table.concat(d.lines(), '\n')
  assert(told:find('this week +13 keystrokes saved: 13 with the adapter, 0 without'), told)
end

function S.lines()
  d.open({ '# LINES', '' })
  d.plant(WRONG_TEXT)
  d.keys('Giif')
  d.shown('if_one\n    two\n    three')
  d.keys('<Tab>')
  d.wait('return vim.fn.line("$") == 4')
  d.equal(d.lines(), { '# LINES', 'ifif_one', '    two', '    three' })
  d.equal(d.lua('return vim.api.nvim_win_get_cursor(0)'), { 4, 9 })
end

function S.cycle()
  d.open({ '' })
  d.plant('require("c2l.suggestion"); local s = require("c2l.suggest"); s.cycle = function() return true end')
  d.keys('ibeta')
  d.shown('_beta_g1_0()')
  d.keys('<M-]>')
  d.shown('_beta_g1_1()')
  d.keys('<M-]>')
  d.shown('_beta_g1_2()')
  d.keys('<M-]>')
  d.shown('_beta_g1_0()')
  d.keys('<M-[>')
  d.shown('_beta_g1_2()')
  d.equal(d.lua([[
    local ns = vim.api.nvim_get_namespaces()['c2l.ghost']
    return vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true })[1][4].virt_text[2][1]
  ]]), ' (3/3)', 'annotation')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "beta_beta_g1_2()"')
end

function S.word_and_line()
  d.open({ '# LINES', '' })
  d.plant('local a = require("c2l.accept"); local take = a.take; a.take = function() return take("all") end')
  d.listen('C2lAccepted')
  d.keys('Giif')
  d.shown('if_one\n    two\n    three')
  d.keys('<M-Right>')
  d.shown('\n    two\n    three')
  d.equal(d.lines(), { '# LINES', 'ifif_one' })
  d.keys('<M-Right>')
  d.shown('\n    three')
  d.equal(d.lines(), { '# LINES', 'ifif_one', '    two' })
  d.keys('<M-C-Right>')
  d.wait('return vim.fn.line("$") == 4')
  d.equal(d.lines(), { '# LINES', 'ifif_one', '    two', '    three' })
  local kinds = vim.tbl_map(function(one) return { one.data.kind, one.data.text } end, d.lua('return _G.events'))
  d.equal(kinds, { { 'word', 'if_one' }, { 'word', '\n    two' }, { 'line', '\n    three' } })
  local counts = counted('accepted', 1)
  d.equal({ counts.partlyAccepted, counts.acceptedChars }, { 0, 24 }, 'what the server counts')
end

function S.typing_through()
  d.open({ '' })
  d.plant([[ -- a suggestion that does not live on when the cursor moves
    local suggestion = require('c2l.suggestion')
    local new = suggestion.new
    suggestion.new = function(buf, row, col, ...)
      local made = new(buf, row, col, ...)
      local view = made.view
      made.view = function(self, r, c) return c == col and view(self, r, c) or nil end
      return made
    end
  ]])
  d.keys('igamma')
  d.shown('_gamma_g1_0()')
  d.rest(200)
  d.count()
  local rest = '_gamma_g1_0()'
  for key in ('_gamma'):gmatch('.') do
    d.keys(key)
    rest = rest:sub(2)
    d.equal(d.ghost(), rest, 'no flicker while typing along')
  end
  d.keys('<BS>')
  d.equal(d.ghost(), 'a_g1_0()', 'back within the suggestion')
  d.keys('a')
  d.equal(d.lua('return _G.sent'), 0, 'no request while typing along')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "gamma_gamma_g1_0()"')
  local counts = counted('accepted', 1)
  d.equal({ counts.partlyAccepted, counts.acceptedChars }, { 0, 7 }, 'what was typed by hand is not saved')
end

function S.cover()
  d.open({ '# CLOSE', 'call()' })
  d.plant(WRONG_TEXT)
  d.keys('G$i')
  d.shown('call_arg')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(2) == "call(call_arg)"')
  d.equal(d.lua('return vim.fn.col(".")'), 15, 'cursor after the bracket')
end

function S.pairs()
  -- A pairing plugin closes the bracket that the user types; the suggestion writes it, too.
  d.open({ '# CLOSE', '' })
  d.plant(WRONG_TEXT)
  d.lua('vim.keymap.set("i", "(", "()<C-g>U<Left>")')
  d.keys('Gicall(')
  d.wait('return vim.fn.getline(2) == "call()"')
  d.shown('call_arg')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(2) == "call(call_arg)"')
end

function S.unicode()
  d.open({ '' })
  d.plant(WRONG_TEXT)
  d.keys('is = "né😀" + word')
  d.shown('_word_g1_0()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == [[s = "né😀" + word_word_g1_0()]]')
end

function S.crlf()
  d.start()
  local path = d.write('dos.py', { '# LINES\r', '\r' })
  d.lua('require("c2l").setup(...)', d.options())
  d.edit(path)
  d.equal(d.lua('return vim.bo.fileformat'), 'dos')
  d.ready()
  d.plant(WRONG_TEXT)
  d.keys('Giif')
  d.shown('if_one\n    two\n    three')
  d.keys('<Tab>')
  d.wait('return vim.fn.line("$") == 4')
  d.equal(d.lines(), { '# LINES', 'ifif_one', '    two', '    three' })
end

function S.undo()
  d.open({ '' })
  d.plant('local cmd = vim.cmd; vim.cmd = setmetatable({}, { __index = cmd, __call = function(_, c) if not c:find("undolevels") then cmd(c) end end })')
  d.keys('idelta')
  d.shown('_delta_g1_0()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "delta_delta_g1_0()"')
  d.keys('!<Esc>u')
  d.wait('return vim.api.nvim_get_mode().mode == "n"')
  d.equal(d.lines(), { 'delta' }, 'one undo takes the suggestion back, not what was typed')
end

function S.dismiss()
  d.open({ '' })
  d.plant('require("c2l.suggest").dismiss = function() return true end')
  d.keys('iepsilon')
  d.shown('_epsilon_g1_0()')
  d.keys('<C-]>')
  d.hidden()
  d.rest(400)
  d.equal(d.ghost(), nil, 'stays hidden')
  d.keys('s')
  d.shown('_epsilons_g1_0()')
end

function S.toggle()
  d.open({ '' })
  d.plant('require("c2l.switch").set = function() end')
  d.listen('C2lStatus')
  d.keys('izeta')
  d.shown('_zeta_g1_0()')
  d.lua('require("c2l").disable({ buf = 0 })')
  d.hidden()
  d.keys('s')
  d.rest(500)
  d.equal(d.ghost(), nil, 'off shows nothing')
  d.equal(d.lua('return require("c2l").status().disabledReason'), 'buffer', 'the plugin says why')
  d.equal(d.lua('return vim.b.c2l_enabled'), false)
  d.lua('require("c2l").status({ buf = 0 }, function(status) _G.status = status end)')
  d.wait('return _G.status')
  d.equal(d.lua('return _G.status.disabledReason'), 'buffer', 'the server says why')
  d.equal(d.lua('return require("c2l").statusline()'), 'C2L off')
  d.keys('<Esc>')
  d.lua('require("c2l").toggle({ buf = 0 })')
  d.keys('A')
  d.shown('_zetas_g1_0()')
  d.keys('<Esc>')
  d.lua('vim.cmd("C2L disable")')
  d.wait('return require("c2l").status().state == "disabled"')
  d.equal(d.lua('return require("c2l").status().disabledReason'), 'off')
  d.keys('A2')
  d.rest(400)
  d.equal(d.ghost(), nil, 'off everywhere shows nothing')
  d.lua('vim.cmd("C2L enable")')
  d.shown('_zetas2_g1_0()')
end

function S.buffer_variable()
  -- An ftplugin's `let b:c2l_enabled = 0` holds before any server is there.
  d.start()
  d.plant([[
    local switch = require('c2l.switch')
    switch.enabled, switch.sync = function() return true end, function() end
    switch.state = function() return vim.empty_dict() end
  ]])
  local path = d.write('demo.py', { '' })
  d.lua('vim.api.nvim_create_autocmd("FileType", { callback = function() vim.b.c2l_enabled = 0 end })')
  d.lua('require("c2l").setup(...)', d.options())
  d.edit(path)
  d.ready()
  d.keys('ieta')
  d.rest(600)
  d.equal(d.ghost(), nil)
  d.equal(d.lua('return require("c2l").status().disabledReason'), 'buffer')
  d.lua('vim.b.c2l_enabled = 1')
  d.keys('s')
  d.shown('_etas_g1_0()')
end

function S.statusline()
  d.start()
  d.plant('require("c2l.status").line = function() return "C2L off" end')
  d.listen('C2lStatus')
  local path = d.write('demo.py', { '' })
  d.lua('vim.o.statusline = "%{v:lua.require\'c2l\'.statusline()}"')
  d.equal(d.lua('return require("c2l").statusline()'), 'C2L off')
  d.lua('require("c2l").setup(...)', d.options())
  d.edit(path)
  d.ready()
  d.equal(d.lua('return require("c2l").statusline()'), 'C2L ready #1')
  d.equal(d.lua('return vim.api.nvim_eval_statusline(vim.o.statusline, {}).str'), 'C2L ready #1')
  local states = vim.tbl_map(function(one) return one.data.state end, d.lua('return _G.events'))
  assert(vim.tbl_contains(states, 'starting') and vim.tbl_contains(states, 'ready'), vim.inspect(states))
  d.lua('vim.cmd("C2L status")')
  d.wait('return vim.bo.filetype == "c2l"')
  d.equal(d.lines()[1], 'state        ready')
end

function S.two_buffers()
  d.open({ '' })
  d.plant('local c = require("c2l.client"); local get, first = c.get; c.get = function(b) first = first or b; if b == first then return get(b) end end')
  local second = d.write('second.py', { '' })
  d.keys('itheta')
  d.shown('_theta_g1_0()')
  d.keys('<Esc>')
  d.hidden()
  d.lua('vim.cmd.split()')
  d.edit(second)
  d.keys('iiota')
  d.shown('_iota_g1_0()')
  d.lua('vim.cmd("wincmd p")') -- leaves the buffer while inserting
  d.equal(d.lua('return vim.fn.bufname()'):match('[^/]*$'), 'demo.py')
  d.equal(d.lua([[
    local ns = vim.api.nvim_get_namespaces()['c2l.ghost']
    return #vim.api.nvim_buf_get_extmarks(vim.fn.bufnr('second.py'), ns, 0, -1, {})
  ]]), 0, 'nothing stays behind in a buffer that is left')
  d.keys('<Esc>A')
  d.shown('_theta_g1_0()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "theta_theta_g1_0()"')
  d.equal(d.lua('return #vim.lsp.get_clients({ name = "c2l" })'), 1)
end

function S.two_folders()
  d.start()
  d.plant('require("c2l.folders").join = function() return false end')
  local first, second = d.write('one/a.py', { '' }), d.write('two/b.py', { '' })
  vim.fn.mkdir(d.work .. '/one/.git', 'p')
  vim.fn.mkdir(d.work .. '/two/.git', 'p')
  d.listen('C2lAdapter')
  d.lua('require("c2l").setup(...)', d.options())
  d.edit(first)
  d.edit(second) -- joins a server that is not initialized yet
  d.wait('return #(_G.events or {}) >= 2')
  local folders = vim.tbl_map(function(one) return one.data.folder:match('[^/]*$') end, d.lua('return _G.events'))
  table.sort(folders)
  d.equal(folders, { 'one', 'two' })
  d.equal(d.lua('return #vim.lsp.get_clients({ name = "c2l" })'), 1, 'one server for both')
  d.keys('ikappa')
  d.shown('_kappa_g1_0()')
end

function S.killed()
  d.open({ '' })
  d.plant('require("c2l.supervisor").exited = function() end')
  d.listen('C2lStatus')
  d.keys('ilambda')
  d.shown('_lambda_g1_0()')
  for _, pid in ipairs(d.servers()) do
    vim.uv.kill(pid, 'sigkill')
  end
  d.hidden()
  d.wait('return require("c2l").status().state == "stopped"')
  d.wait(d.READY)
  d.keys('s')
  d.shown('_lambdas_g1_0()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "lambdas_lambdas_g1_0()"')
  local states = vim.tbl_map(function(one) return one.data.state end, d.lua('return _G.events'))
  assert(vim.tbl_contains(states, 'stopped'), 'an event tells of the end: ' .. vim.inspect(states))
end

function S.gives_up()
  d.open({ '' }, { restarts = 0 })
  d.plant('require("c2l.status").gave_up = function() end')
  for _, pid in ipairs(d.servers()) do
    vim.uv.kill(pid, 'sigkill')
  end
  d.wait('return require("c2l").status().kind == "Error"')
  d.equal(d.lua('return require("c2l").status().message:match("C2L restart")'), 'C2L restart')
  d.lua('vim.cmd("C2L restart")')
  d.wait(d.READY)
  d.keys('imu')
  d.shown('_mu_g1_0()')
end

function S.restart()
  d.open({ '' })
  d.plant('require("c2l.supervisor").restart = function() end')
  local before = d.servers()[1]
  d.lua('vim.cmd("C2L restart")')
  d.wait(('local now = vim.api.nvim_get_proc_children(vim.fn.getpid())[1]; return now and now ~= %d'):format(before))
  d.wait(d.READY)
  d.keys('inu')
  d.shown('_nu_g1_0()')
end

function S.settings_live()
  d.open({ '' }, { settings = { completion = { candidates = 2 } } })
  d.plant('require("c2l.client").configure = function() end')
  d.keys('ixi')
  d.shown('_xi_g1_0()')
  d.lua('require("c2l").configure({ completion = { trigger = "manual" } })')
  d.wait([[
    require('c2l').status({ buf = 0 }, function(status) _G.reason = status.disabledReason end)
    return _G.reason == 'manual'
  ]])
  d.keys('x')
  d.rest(500)
  d.equal(d.ghost(), nil, 'manual: nothing by itself')
  d.keys('<M-\\>')
  d.shown('_xix_g1_0()')
  d.keys('<M-]>')
  d.shown('_xix_g1_1()')
  d.keys('<M-]>')
  d.shown('_xix_g1_0()') -- two candidates, as set
  d.lua('require("c2l").configure({ completion = { trigger = "automatic" } })')
  d.wait([[
    require('c2l').status({ buf = 0 }, function(status) _G.reason = status.disabledReason or 'none' end)
    return _G.reason == 'none'
  ]])
  d.keys('y')
  d.shown('_xixy_g1_0()')
end

function S.machine_setting()
  -- A setting that only a user may set reaches the server, and starts it anew when it changes.
  d.open({ '' }, { settings = { model = { id = 'one' } } })
  d.plant('require("c2l.config").machine_settings = function() return {} end')
  d.equal(d.lua('return require("c2l").status().model'), 'one')
  d.lua('require("c2l").configure({ model = { id = "two" } })')
  d.wait('local status = require("c2l").status(); return status.state == "ready" and status.model == "two"')
end

function S.stale()
  d.open({ '' })
  d.plant('require("c2l.client").cancel = function() end')
  d.count()
  d.keys('iSLOW:0.6 omicron')
  d.wait('return _G.sent > 0')
  d.rest(300)
  d.keys('s')
  d.wait('return _G.sent > 1')
  assert(d.lua('return _G.cancelled') > 0, 'what is overtaken is cancelled')
  d.rest(400)
  d.equal(d.ghost(), nil, 'the answer for the place before is not shown')
  d.shown('_omicrons_g1_0()')
end

function S.popup()
  d.open({ 'pizza', 'pickle', '' })
  d.plant('require("c2l.config").options.popup_visible = function() return false end')
  d.keys('Gipi')
  d.shown('_pi_g1_0()')
  d.keys('<C-n>')
  d.wait('return vim.fn.pumvisible() == 1')
  d.hidden()
  d.rest(300)
  d.equal(d.ghost(), nil, 'hidden while the menu is open')
  d.keys('<C-e>')
  d.wait('return vim.fn.pumvisible() == 0')
  d.shown('_pi_g1_0()')
end

function S.leave()
  d.open({ '' })
  d.plant('require("c2l.suggest").leave = function() end')
  d.keys('irho')
  d.shown('_rho_g1_0()')
  d.keys('<Esc>')
  d.hidden()
  d.keys('a')
  d.shown('_rho_g1_0()')
  d.keys('<Left>')
  d.rest(300)
  assert(d.ghost() ~= '_rho_g1_0()', 'hidden where it does not belong')
end

function S.tab_falls_through()
  d.start()
  d.lua('vim.keymap.set("i", "<Tab>", function() return "<lt>before>" end, { expr = true })')
  d.lua('vim.keymap.set("i", "<M-]>", "plain")')
  local path = d.write('demo.py', { '' })
  d.plant('require("c2l.suggest").is_visible = function() return true end')
  d.lua('require("c2l").setup(...)', d.options())
  d.edit(path)
  d.ready()
  d.lua('vim.b.c2l_enabled = false')
  d.keys('i<Tab><M-]>')
  d.wait('return vim.fn.getline(1) == "<before>plain"')
  d.keys('<Esc>ccsigma')
  d.lua('vim.b.c2l_enabled = true')
  d.keys('s')
  d.shown('_sigmas_g1_0()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "sigmas_sigmas_g1_0()"')
  d.lua('require("c2l.keymaps").set(false)')
  d.lua('require("c2l").disable()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "sigmas_sigmas_g1_0()<before>"')
end

function S.plain_tab()
  d.open({ '' })
  d.plant('vim.keymap.set("i", "<Plug>(c2l-otherwise-accept)", "")')
  d.lua('vim.b.c2l_enabled = false; vim.bo.expandtab = false')
  d.keys('i<Tab>x')
  d.wait('return vim.fn.getline(1) == "\\tx"')
end

function S.own_keys()
  d.open({ '' }, { keymaps = { accept = '<C-y>', dismiss = false } })
  d.plant('vim.keymap.del("i", "<C-y>")')
  d.equal(d.lua('return vim.fn.maparg("<C-]>", "i")'), '')
  d.keys('itau')
  d.shown('_tau_g1_0()')
  d.keys('<C-y>')
  d.wait('return vim.fn.getline(1) == "tau_tau_g1_0()"')
end

function S.expression_mapping()
  d.open({ '' }, { keymaps = false })
  d.plant('require("c2l.accept").take = function() return true end')
  d.lua([[
    vim.keymap.set('i', '<Tab>', function()
      return require('c2l').accept() and '' or '<Tab>'
    end, { expr = true })
  ]])
  d.keys('iupsilon')
  d.shown('_upsilon_g1_0()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "upsilon_upsilon_g1_0()"')
end

function S.adapter()
  d.open({ '' })
  d.plant('require("c2l.status").adapter_changed = function() end')
  d.listen('C2lAdapter')
  d.lua('vim.cmd("C2L adapter regenerate")')
  d.wait('return #(_G.events or {}) > 0')
  d.equal(d.lua('return _G.events[1].data.generation'), 2)
  d.equal(d.lua('return require("c2l").statusline()'), 'C2L ready #2')
  d.keys('iphi')
  d.shown('_phi_g2_0()')
  d.keys('<Esc>')
  d.lua('vim.cmd("C2L adapter toggle")')
  d.rest(300)
  d.keys('ccchi')
  d.shown('_chi_0()') -- the bare model
end

function S.deepen()
  d.open({ '' })
  d.plant('require("c2l.protocol").Method.ADAPTER_DEEPEN = "c2l/adapter/regenerate"')
  d.lua('vim.cmd("C2L adapter deepen")')
  local training = '(require("c2l").status().adapter.deep or ""):match("^training, %d+ of 4000 steps$")'
  d.wait('return ' .. training)
  d.keys('ipsi')
  d.shown('_psi_g1_0()') -- completions go on meanwhile
  d.keys('<Esc>')
  d.equal(d.lua('return vim.fn.getcompletion("C2L adapter deepen ", "cmdline")'), { 'cancel' })
  d.lua('vim.cmd("C2L adapter deepen cancel")')
  d.wait('return not ' .. training)
end

function S.commands()
  d.open({ '' })
  d.plant('require("c2l.command").complete = function() return {} end')
  d.equal(d.lua('return vim.fn.getcompletion("C2L st", "cmdline")'), { 'statistics', 'status' })
  d.equal(d.lua('return vim.fn.getcompletion("C2L adapter re", "cmdline")'), { 'regenerate', 'reset' })
  for _, command in ipairs({ 'status', 'statistics', 'report', 'adapter' }) do
    d.lua('vim.cmd("C2L ' .. command .. '")')
    d.wait('return vim.bo.filetype == "c2l" and vim.fn.line("$") > 1')
    d.keys('q')
    d.wait('return vim.bo.filetype == "python"')
  end
  d.lua('vim.cmd("C2L language")')
  d.keys('ipsi')
  d.rest(500)
  d.equal(d.ghost(), nil, 'off for the language')
  d.lua('require("c2l").status({ buf = 0 }, function(status) _G.status = status end)')
  d.wait('return _G.status and _G.status.disabledReason == "language"')
  d.lua('vim.cmd("C2L language")')
  d.keys('s')
  d.shown('_psis_g1_0()')
  d.lua('vim.cmd("C2L explain")')
  d.wait('return vim.bo.filetype == "c2l"')
  assert(table.concat(d.lines(), '\n'):find('generation = 1'), vim.inspect(d.lines()))
  d.keys('<Esc>q')
  d.lua('vim.cmd("C2L model unload")')
  d.wait('return require("c2l").status().state == "unloaded"')
  d.lua('vim.cmd("C2L model load")')
  d.wait(d.READY)
  d.lua('vim.cmd("C2L snooze 1")')
  d.wait('return require("c2l").status().disabledReason == "snoozed"')
  d.lua('vim.cmd("C2L snooze 0")')
  d.wait('return require("c2l").status().state == "ready"')
end

function S.invoked_in_vain()
  d.open({ '# NOTHING', '' })
  d.plant('require("c2l.status").why = function(_, reply) reply(nil) end')
  d.lua([[
    _G.told = ''
    vim.api.nvim_echo = function(chunks) _G.told = _G.told .. chunks[1][1] end
  ]])
  d.keys('Giomega')
  d.rest(500)
  d.equal(d.lua('return _G.told'), '', 'silent while typing')
  d.keys('<M-\\>')
  d.wait('return _G.told == "c2l: The model had nothing to suggest here."')
  d.keys('<Esc>')
  d.lua('vim.cmd("C2L status")')
  d.wait('return vim.bo.filetype == "c2l"')
  assert(table.concat(d.lines(), '\n'):find('last request The model had nothing'), vim.inspect(d.lines()))
end

function S.problems()
  d.start()
  d.lua([[
    _G.told = {}
    vim.notify = function(message, level) table.insert(_G.told, { message, level }) end
  ]])
  d.plant('require("c2l.status").problem = function() end')
  local path = d.write('demo.py', { '' })
  d.lua('require("c2l").setup(...)', d.options({ settings = { completion = { colour = 1 } } }))
  d.edit(path)
  d.ready()
  d.wait('return #_G.told > 0')
  local want = 'c2l: c2l.completion.colour in the workspace settings is not a setting. See :help c2l-settings.'
  d.equal(d.lua('return _G.told'), { { want, vim.log.levels.WARN } }, 'once, with what to do')
end

local LINE = 'return require("c2l").statusline()'

function S.line_says_why()
  d.open({ '' })
  d.plant('require("c2l.status").refresh = function() end')
  d.equal(d.lua(LINE), 'C2L ready #1')
  d.lua('vim.cmd("C2L language")')
  d.wait(LINE .. ' == "C2L off"')
  d.lua('vim.cmd("C2L toggle buffer")')
  d.wait(LINE .. ' == "C2L ready #1"') -- on here although the language is off
  d.lua('vim.cmd("C2L toggle buffer | unlet b:c2l_enabled | C2L language")')
  d.lua('require("c2l").configure({ completion = { trigger = "manual" } })')
  d.lua('vim.cmd("C2L enable buffer")')
  d.wait(LINE .. ' == "C2L manual #1"')
  d.lua('require("c2l").configure({ completion = { trigger = "automatic" } })')
  d.wait(LINE .. ' == "C2L ready #1"')
  d.keys('iLEFT_OUT')
  d.wait(LINE .. ' == "C2L off"')
  d.lua('require("c2l").status(nil, function(status) _G.status = status end)')
  d.wait('return _G.status and _G.status.disabledReason == "left-out"')
end

function S.switches_survive()
  d.open({ '' })
  d.plant('require("c2l.switch").state = function() return { documents = vim.empty_dict() } end')
  d.lua('vim.cmd("C2L adapter toggle")')
  d.wait('return require("c2l").status().adapter.enabled == false')
  d.lua('vim.cmd("C2L language")')
  d.wait(LINE .. ' == "C2L off"')
  d.lua('vim.cmd("C2L snooze 9")')
  d.wait('return require("c2l").status().disabledReason == "snoozed"')
  d.lua('require("c2l").restart()')
  d.wait('return require("c2l").status().state == "starting"')
  d.wait('return require("c2l").status().disabledReason == "snoozed"')
  d.lua('vim.cmd("C2L snooze 0")')
  d.wait('local status = require("c2l").status() return status.state == "ready" and status.adapter.enabled == false')
  d.wait(LINE .. ' == "C2L off"')
  d.lua('vim.cmd("C2L language")')
  d.wait(LINE .. ' == "C2L ready base"')
  d.keys('ikappa')
  d.shown('_kappa_0()') -- the bare model, as before
end

function S.trust()
  d.start()
  d.lua('vim.env.FAKE_LOG = ... .. "/engine.log"', d.work)
  d.plant('require("c2l.config").options.trusted = true; require("c2l.config").set = function() return {} end')
  local path = d.write('demo.py', { '' })
  d.lua('require("c2l").setup(...)', d.options({ trusted = false }))
  d.edit(path)
  local function told()
    local notes = {}
    for _, line in ipairs(vim.fn.filereadable(d.work .. '/engine.log') == 1 and vim.fn.readfile(d.work .. '/engine.log') or {}) do
      local ok, note = pcall(vim.json.decode, line)
      if ok and note.method == 'open_folder' then
        table.insert(notes, note.params.trusted)
      end
    end
    return notes
  end
  d.wait('return require("c2l").status().state == "ready"')
  vim.wait(20000, function() return #told() > 0 end)
  d.equal(told(), { false })
  d.lua('require("c2l").trust(true)')
  vim.wait(20000, function() return #told() > 1 end)
  d.equal(told(), { false, true })
end

function S.careful_commands()
  d.open({ '' })
  d.plant('vim.fn.confirm = function() return 1 end; require("c2l.switch").toggle = function() end')
  d.lua([[
    _G.told, _G.asked = {}, 0
    vim.notify = function(message) table.insert(_G.told, message) end
    local confirm = vim.fn.confirm
    vim.fn.confirm = function(...)
      _G.asked = _G.asked + 1
      return _G.answer
    end
  ]])
  d.listen('C2lAdapter')
  d.lua('_G.answer = 2; vim.cmd("C2L adapter reset")')
  d.equal(d.lua('return _G.asked'), 1, 'asked first')
  d.lua('vim.cmd("C2L adapter regenerate")')
  d.wait('return #(_G.events or {}) > 0')
  d.equal(d.lua('return _G.events[1].data.trigger'), 'regenerate', 'nothing was forgotten')
  d.lua('_G.answer = 1; vim.cmd("C2L adapter reset")')
  d.wait('return #_G.events > 1 and _G.events[2].data.trigger == "reset"')
  d.lua('vim.cmd("C2L adapter reset force")')
  d.wait('return #_G.events > 2 and _G.asked == 2')
  d.lua('vim.cmd("C2L trigger")')
  assert(d.lua('return _G.told[1]'):find('insert mode'), 'says why nothing happens')
  d.lua('vim.cmd("C2L language")')
  d.wait(LINE .. ' == "C2L off"')
  d.lua('vim.cmd("C2L toggle buffer")')
  d.equal(d.lua('return vim.b.c2l_enabled'), true, 'what is off is turned on')
  d.lua('require("c2l.config").options.settings.model = { path = "/old" }; require("c2l").restart = function() end')
  d.lua('vim.cmd("C2L model select other")')
  d.equal(d.lua('return require("c2l.config").machine_settings().model'), { id = 'other', path = '' })
end

function S.health()
  d.open({ '' })
  d.plant('require("c2l.health").check = function() error("broken") end')
  d.lua('vim.cmd("checkhealth c2l")')
  local text = table.concat(d.lines(), '\n')
  assert(text:find('serves 1 buffer'), text)
  assert(text:find('accept: <Tab>'), text)
  assert(not text:find('ERROR'), text)
end

function S.wrong_options()
  d.start()
  d.plant('require("c2l.config").set = function() return {} end')
  d.lua([[
    _G.told = {}
    vim.notify = function(message) table.insert(_G.told, message) end
    require('c2l').setup(vim.tbl_extend('force', ..., { nonsense = 1, hide_on_popup = 'x', keymaps = { acept = '<Tab>' } }))
  ]], d.options())
  local told = d.lua('return _G.told')
  table.sort(told)
  d.equal(told, {
    'c2l: option "hide_on_popup" must be a boolean.',
    'c2l: there is no key for "acept".',
    'c2l: there is no option "nonsense".',
  })
end

function S.help()
  d.start()
  vim.fn.mkdir(d.work .. '/help/doc', 'p')
  vim.uv.fs_copyfile(d.plugin .. '/doc/c2l.txt', d.work .. '/help/doc/c2l.txt')
  d.plant('vim.fn.writefile({ "no tags" }, (...) .. "/help/doc/c2l.txt")', d.work)
  d.lua('vim.cmd.helptags(... .. "/help/doc"); vim.opt.rtp:prepend(... .. "/help")', d.work)
  for _, tag in ipairs({ 'c2l', 'c2l-core', ':C2L-status', 'c2l.setup()', '<Plug>(c2l-accept)', 'b:c2l_enabled' }) do
    d.lua('vim.cmd.help(...)', tag)
    assert(d.lua('return vim.fn.getline(".")'):find('*' .. tag .. '*', 1, true), tag)
  end
end

--- A git repository that holds the plugin where ours does, and its URL. The fault: it holds one that shows nothing.
local function repository()
  local top = d.work .. '/repository'
  vim.fn.mkdir(top .. '/editors', 'p')
  assert(vim.system({ 'cp', '-R', d.plugin, top .. '/editors/neovim' }):wait().code == 0)
  if d.fault then
    local ghost = top .. '/editors/neovim/lua/c2l/ghost.lua'
    local lines = vim.fn.readfile(ghost)
    table.insert(lines, #lines, 'M.draw = M.clear') -- before the last line, which returns it
    vim.fn.writefile(lines, ghost)
  end
  local config = { '-c', 'user.name=c2l', '-c', 'user.email=c2l@localhost', '-c', 'commit.gpgsign=false' }
  for _, words in ipairs({ { 'init', '-q' }, { 'add', '.' }, { 'commit', '-q', '-m', 'The plugin' } }) do
    local done = vim.system(vim.list_extend(vim.list_extend({ 'git' }, config), words), { cwd = top }):wait()
    assert(done.code == 0, done.stderr)
  end
  return 'file://' .. top
end

--- What the help says to write for an installation: its code block with this text, in a person's place.
local function told(text, replace)
  local help = table.concat(vim.fn.readfile(d.plugin .. '/doc/c2l.txt'), '\n')
  for block in help:gmatch('>lua\n(.-)\n<') do
    if block:find(text, 1, true) then
      for what, by in pairs(replace) do
        assert(block:find(what, 1, true), what .. ' is not in the help')
        block = block:gsub(vim.pesc(what), (by:gsub('%%', '%%%%')))
      end
      return block
    end
  end
  error('the help says nothing of ' .. text)
end

local function as_lua(options) return ('(vim.json.decode([==[%s]==]))'):format(vim.json.encode(d.options(options))) end

--- Installed as the help says, it gives ghost text, its commands are there, and the help itself is found.
local function installed(init)
  d.start(init)
  d.wait('return vim.v.vim_did_enter == 1') -- the child answers already while it installs
  d.edit(d.write('demo.py', { '# demo', '' }))
  d.ready()
  d.keys('Gialpha')
  d.shown('_alpha_g1_0()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(2) == "alpha_alpha_g1_0()"')
  d.equal(d.lua('return vim.fn.exists(":C2L")'), 2)
  d.equal(d.lua('return vim.fn.maparg("<Plug>(c2l-accept)", "i") ~= ""'), true)
  local where = d.lua('return vim.api.nvim_get_runtime_file("lua/c2l/init.lua", true)')
  d.equal(#where, 1, 'one plugin')
  d.lua('vim.cmd("helptags ALL")')
  d.equal(d.lua('return vim.fn.getcompletion("c2l-install", "help")'), { 'c2l-install' })
  return where[1]
end

function S.pack()
  local init = told('vim.pack', { REPOSITORY = repository(), [' {}'] = as_lua() })
  -- vim.pack asks before it installs anything; a person says yes.
  local where = installed('_G.asked = 0; vim.fn.confirm = function() _G.asked = _G.asked + 1; return 1 end\n' .. init)
  d.equal(d.lua('return _G.asked'), 1)
  assert(where:find('/pack/core/opt/c2l_lsp/', 1, true), where)
end

--- With the lazy.nvim of $LAZY_NVIM.
local function lazy(spec)
  return installed(('vim.opt.runtimepath:prepend(%q)\nrequire("lazy").setup({\n%s}, %s)'):format(
    vim.env.LAZY_NVIM, spec, '{ rocks = { enabled = false }, change_detection = { enabled = false } }'))
end

function S.lazy()
  local where = lazy(told("url = 'REPOSITORY'", { REPOSITORY = repository(), [' {}'] = as_lua() }))
  assert(where:find('/lazy/c2l_lsp/', 1, true), where)
end

function S.lazy_clone()
  local clone = repository():gsub('^file://', '') .. '/editors/neovim'
  local spec = told('dir = ', { ['/path/to/c2l_lsp/editors/neovim'] = clone, ['{},'] = as_lua() .. ',' })
  assert(lazy(spec):find(clone, 1, true))
end

-- Neovim's own client, without the plugin's renderer: `vim.lsp.enable('c2l')` and the on_accept of :help c2l-core.
function S.core()
  d.start()
  local path = d.write('demo.py', { '' })
  d.lua('vim.lsp.config("c2l", ...)', { cmd = d.options().cmd, settings = { c2l = d.PATIENT } })
  d.lua('vim.lsp.enable("c2l"); vim.lsp.inline_completion.enable(true)')
  d.edit(path)
  d.wait('local c = vim.lsp.get_clients({ name = "c2l" })[1]; return c and c.initialized')
  d.wait([[
    local c = vim.lsp.get_clients({ name = 'c2l' })[1]
    local answer = c:request_sync('c2l/status', vim.empty_dict(), 5000, 0)
    return answer and answer.result and answer.result.state == 'ready' and answer.result.adapter
  ]])
  d.keys('iword')
  local function core_ghost()
    return d.lua([[
      local ns = vim.api.nvim_get_namespaces()['nvim.lsp.inline_completion']
      local mark = ns and vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true })[1]
      return mark and mark[4].virt_text[1][1]
    ]])
  end
  assert(vim.wait(20000, function() return core_ghost() == '_word_g1_0()' end, 20), vim.inspect(core_ghost()))
  d.lua([[
    _G.accept = function(broken)
      return vim.lsp.inline_completion.get({ on_accept = not broken and require('c2l.core').on_accept or nil })
    end
  ]])
  d.keys('_wo') -- typed along, accepted before the next answer
  d.lua('_G.accept(...)', d.fault)
  d.wait('return #vim.fn.getline(1) > 8')
  d.rest(200)
  d.equal(d.lines(), { 'word_word_g1_0()' })
end

-- With the real server and the shipped model: what is accepted is what was shown, whatever the model says.

local CODE = {
  'class Registry:',
  '    def __init__(self):',
  '        self.values = []',
  '',
  '    def register_widget(self, value):',
  '        self.values.append(value)',
  '        return self.values',
  '',
  'registry = Registry()',
  'registry.register_widget(1)',
  'registry.register_widget(2)',
  'registry.register_widget(3)',
  '',
}

-- A real text where the fault is planted is taken wrongly into the buffer.
local WRONG_ACCEPT = [[
  local set_text = vim.api.nvim_buf_set_text
  vim.api.nvim_buf_set_text = function(buf, row, col, last, stop, lines)
    lines[1] = 'x' .. lines[1]
    return set_text(buf, row, col, last, stop, lines)
  end
]]

--- The line at the cursor up to it, and what stands from there on if the shown text is accepted.
local function expected(ghost)
  local at = d.lua('return vim.api.nvim_win_get_cursor(0)')
  local lines = d.lines()
  local line = lines[at[1]]
  local new = vim.split(line:sub(1, at[2]) .. ghost .. line:sub(at[2] + 1), '\n', { plain = true })
  local result = vim.list_slice(lines, 1, at[1] - 1)
  vim.list_extend(result, new)
  return vim.list_extend(result, vim.list_slice(lines, at[1] + 1))
end

local function same_soon(want, what)
  local got
  vim.wait(d.fault and 3000 or 20000, function()
    got = d.lines()
    return vim.deep_equal(got, want)
  end, 20)
  d.equal(got, want, what)
end

-- A model may have nothing to say at one place; at one of these it has.
local PROMPTS = { 'registry.', 'registry.register_widget(', 'registry.register_', 'print(registry' }

--- The code as it was, a new line at its end and a prompt on it that the model continues. The ghost text.
local function provoke()
  for _, prompt in ipairs(PROMPTS) do
    d.keys('<Esc>')
    d.wait('return vim.api.nvim_get_mode().mode == "n"')
    d.lua('vim.api.nvim_buf_set_lines(0, 0, -1, true, ...)', CODE)
    d.keys('Gi' .. prompt)
    if vim.wait(15000, function() return d.ghost() ~= nil end, 20) then
      return d.ghost(), prompt
    end
  end
  return d.shown()
end

function S.real_session()
  local path = d.open(CODE)
  d.plant(WRONG_ACCEPT)
  local ghost, prompt = provoke()
  local want = expected(ghost)
  d.keys('<Tab>')
  same_soon(want, 'accepted is what was shown')
  d.keys('<Esc>:write<CR>')
  d.wait('return not vim.bo.modified')
  d.equal(vim.fn.readfile(path), want, 'file on disk')

  -- typing through, then accepting
  ghost = provoke()
  want = expected(ghost)
  d.rest(200)
  d.count()
  local typed = ghost:match('^[^\n]+'):sub(1, 3)
  d.say('shown:', vim.inspect(ghost), 'typed:', typed)
  for key in typed:gmatch('.') do
    d.keys(key == '<' and '<lt>' or key)
    ghost = ghost:sub(2)
    d.equal(d.ghost(), ghost, 'typing along only shortens it')
  end
  d.equal(d.lua('return _G.sent'), 0, 'no request while typing along')
  d.keys('<Tab>')
  same_soon(want, 'typed along, then accepted')

  -- a word, then dismissed
  ghost, prompt = provoke()
  local word = ghost:match('^[%w_]+') or ghost:match('^[^%w_%s]+')
  d.keys('<M-Right>')
  d.wait(('return vim.fn.getline(".") == %q'):format(prompt .. word))
  d.keys('<C-]>')
  d.hidden()

  -- candidates: each is shown in turn, the chosen one is accepted
  local first = provoke()
  d.keys('<M-]>')
  d.wait([[
    local ns = vim.api.nvim_get_namespaces()['c2l.ghost']
    local mark = vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true })[1]
    local chunks = mark and (mark[4].virt_lines and mark[4].virt_lines[#mark[4].virt_lines] or mark[4].virt_text)
    return chunks and chunks[2] and chunks[2][1]:match('%(%d/%d%)')
  ]])
  local second = d.shown()
  d.say('candidates:', vim.inspect(first), vim.inspect(second))
  want = expected(second)
  d.keys('<Tab>')
  same_soon(want, 'the chosen candidate')

  -- off says why, on works again
  d.lua('require("c2l").disable({ buf = 0 })')
  d.lua('vim.api.nvim_buf_set_lines(0, 0, -1, true, ...)', CODE)
  d.keys('<Esc>Gi' .. prompt)
  d.rest(1000)
  d.equal(d.ghost(), nil, 'off shows nothing')
  d.lua('require("c2l").status({ buf = 0 }, function(status) _G.status = status end)')
  d.wait('return _G.status and _G.status.disabledReason == "buffer"')
  d.lua('require("c2l").enable({ buf = 0 })')
  d.shown()

  -- settings live
  d.lua('require("c2l").configure({ completion = { trigger = "manual" } })')
  d.wait([[
    require('c2l').status({ buf = 0 }, function(status) _G.reason = status.disabledReason end)
    return _G.reason == 'manual'
  ]])
  d.lua('vim.api.nvim_buf_set_lines(0, 0, -1, true, ...)', CODE)
  d.keys('<Esc>Gi' .. prompt)
  d.rest(1000)
  d.equal(d.ghost(), nil, 'manual: nothing by itself')
  for _ = 1, 4 do -- on a busy machine an answer may not be there in time
    d.keys('<M-\\>')
    if vim.wait(15000, function() return d.ghost() ~= nil end, 20) then
      break
    end
  end
  d.shown()
end

--- What is suggested behind some prompts; nothing at all is an answer, too, of which the user is told.
local function suggested()
  local texts = {}
  d.lua('vim.api.nvim_echo = function() _G.in_vain = true end')
  for _, prompt in ipairs({ 'import ', 'from zebra import ', 'def quokka_', 'result = wombat_' }) do
    d.keys('<Esc>')
    d.wait('return vim.api.nvim_get_mode().mode == "n"')
    d.lua('vim.api.nvim_buf_set_lines(0, 0, -1, true, { "" })')
    d.keys('i' .. prompt)
    d.lua('_G.in_vain = false')
    d.keys('<M-\\>')
    vim.wait(8000, function() return d.ghost() ~= nil or d.lua('return _G.in_vain') end, 20)
    table.insert(texts, d.ghost() or '')
  end
  return texts
end

function S.real_adapter()
  -- The fault: an adapter that goes on learning and has no effect.
  d.open(CODE, d.fault and { settings = { adapter = { scale = 0 } } })
  d.listen('C2lAdapter')
  local texts = suggested()
  local before = d.lua('return require("c2l").status().adapter.generation')
  local zoo = { 'import zebra', '' }
  for number = 1, 60 do
    vim.list_extend(zoo, { '', ('from zebra import quokka_%d'):format(number), '', '' })
    vim.list_extend(zoo, { ('def quokka_handler_%d(wombat):'):format(number), '    result = wombat_service(wombat)' })
    vim.list_extend(zoo, { '    return zebra.quokka_handler(result)', '' })
  end
  d.write('zoo.py', zoo)
  d.wait(('local e = _G.events or {}; return #e > 0 and e[#e].data.generation > %d'):format(before))
  d.wait(('return require("c2l").status().adapter.generation > %d'):format(before))
  d.wait('return require("c2l").statusline():match("^C2L ready #%d+$")')
  -- The prompts stand in a buffer, which is learned too: not every new generation has read the file.
  local stop, now = vim.uv.now() + (d.fault and 10000 or 60000), suggested()
  while vim.deep_equal(now, texts) and vim.uv.now() < stop do
    d.rest(500)
    now = suggested()
  end
  assert(not vim.deep_equal(now, texts), 'no suggestion has changed: ' .. vim.inspect(now))
end

function S.real_killed()
  d.open(CODE)
  d.plant('require("c2l.supervisor").exited = function() end')
  provoke()
  for _, pid in ipairs(d.servers()) do
    vim.uv.kill(pid, 'sigkill')
  end
  d.hidden()
  d.wait('return require("c2l").status().state == "stopped"')
  d.wait(d.READY)
  local ghost = d.shown()
  local want = expected(ghost)
  d.keys('<Tab>')
  same_soon(want, 'works again')
end

function S.real_folders()
  d.start()
  d.plant('require("c2l.folders").join = function() return false end')
  local first, second = d.write('one/a.py', CODE), d.write('two/b.py', CODE)
  vim.fn.mkdir(d.work .. '/one/.git', 'p')
  vim.fn.mkdir(d.work .. '/two/.git', 'p')
  d.listen('C2lAdapter')
  d.lua('require("c2l").setup(...)', d.options())
  d.edit(first)
  d.edit(second)
  d.wait([[
    local folders = {}
    for _, one in ipairs(_G.events or {}) do folders[one.data.folder:match('[^/]*$')] = true end
    return folders.one and folders.two
  ]])
  d.equal(d.lua('return #vim.lsp.get_clients({ name = "c2l" })'), 1)
  local want = expected((provoke()))
  d.keys('<Tab>')
  same_soon(want, 'in the second folder')
end

return S
