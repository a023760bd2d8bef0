-- Scenarios of a user. Each plants its fault first if one is requested, and must then fail.
-- The fake engine completes `word` with `_word_g1_0()`: the word, the adapter generation, the number of the candidate.
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

--- Wait until a count with adapter has the expected value; return all counts with adapter.
local function counted(name, expected)
  d.wait(([[
    require('c2l').statistics(function(all) _G.counts = all.withAdapter end)
    return _G.counts and _G.counts[%q] == %d
  ]]):format(name, expected))
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
  local text = table.concat(d.lines(), '\n')
  assert(text:find('keystrokes saved %(week%) +13 +0'), text)
end

function S.accept_several_lines()
  d.open({ '# LINES', '' })
  d.plant(WRONG_TEXT)
  d.keys('Giif')
  d.shown('if_one\n    two\n    three')
  d.keys('<Tab>')
  d.wait('return vim.fn.line("$") == 4')
  d.equal(d.lines(), { '# LINES', 'ifif_one', '    two', '    three' })
  d.equal(d.lua('return vim.api.nvim_win_get_cursor(0)'), { 4, 9 })
end

function S.cycle_candidates()
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

function S.accept_word_and_line()
  d.open({ '# LINES', '' })
  d.plant('local a = require("c2l.accept"); local accept = a.accept; a.accept = function() return accept("all") end')
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

function S.typing_shortens_suggestion()
  d.open({ '' })
  d.plant([[ -- a suggestion that is dropped when the cursor moves
    local suggestion = require('c2l.suggestion')
    local new = suggestion.new
    suggestion.new = function(buf, row, col, ...)
      local result = new(buf, row, col, ...)
      local view = result.view
      result.view = function(self, r, c) return c == col and view(self, r, c) or nil end
      return result
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
    d.equal(d.ghost(), rest, 'no flicker while typing the suggestion')
  end
  d.keys('<BS>')
  d.equal(d.ghost(), 'a_g1_0()', 'back within the suggestion')
  d.keys('a')
  d.equal(d.lua('return _G.sent'), 0, 'no request while typing the suggestion')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "gamma_gamma_g1_0()"')
  local counts = counted('accepted', 1)
  d.equal({ counts.partlyAccepted, counts.acceptedChars }, { 0, 7 }, 'typed characters do not count as saved')
end

function S.replaces_text_after_cursor()
  d.open({ '# CLOSE', 'call()' })
  d.plant(WRONG_TEXT)
  d.keys('G$i')
  d.shown('call_arg')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(2) == "call(call_arg)"')
  d.equal(d.lua('return vim.fn.col(".")'), 15, 'cursor after the bracket')
end

local SHOP = { 'def total(order):', '    return order', '', 'print("é😀", total(3), 4)', 'x = total(5)' }

--- Return the code action on a line of the current buffer, counted from 0, as soon as there is one.
local function follow_up(line)
  return d.wait(([[
    local params = vim.lsp.util.make_range_params(0, 'utf-16')
    params.range = { start = { line = %d, character = 0 }, ['end'] = { line = %d, character = 0 } }
    params.context = { diagnostics = {} }
    local replies = vim.lsp.buf_request_sync(0, 'textDocument/codeAction', params, 2000)
    for _, reply in pairs(replies or {}) do
      if reply.result and reply.result[1] then
        return reply.result[1].title
      end
    end
  ]]):format(line, line))
end

function S.follow_up_on_the_line()
  d.open(SHOP)
  d.plant('require("c2l.replacement").new = function() end')
  d.listen('C2lAccepted')
  d.keys('ggwcwprice<Esc>')
  follow_up(3)
  d.keys('4GA')
  d.shown(' → price')
  d.equal(d.lua('return require("c2l").is_visible()'), true)
  d.keys('<Left>')
  d.rest(200)
  d.shown(' → price')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(4) == [[print("é😀", price(3), 4)]]')
  d.equal(d.lua('return _G.events[1].data.text'), 'price')
  d.keys('<Esc>u')
  d.wait('return vim.fn.getline(4) == [[print("é😀", total(3), 4)]]')
  d.keys('5G')
  follow_up(4)
  d.keys('A')
  d.shown(' → price')
  d.keys('<C-]>')
  d.hidden()
  d.equal(d.lines()[5], 'x = total(5)')
end

function S.follow_up_everywhere()
  d.open(SHOP)
  local user = d.write('user.py', { 'import demo', 'demo.total(6)' })
  d.write('.gitignore', { 'left_out.py' })
  d.write('left_out.py', { 'import demo', 'demo.total(7)' })
  d.plant('vim.lsp.util.apply_workspace_edit = function() end')
  d.keys('ggwcwprice<Esc>')
  d.equal(follow_up(3), 'Apply the same edit here (3 places): total → price')
  d.keys('4G')
  d.lua('vim.lsp.buf.code_action({ apply = true, context = { only = { "refactor.rewrite" }, diagnostics = {} } })')
  d.wait('return vim.fn.getline(5) == "x = price(5)"')
  d.equal(d.lines()[4], 'print("é😀", price(3), 4)')
  d.lua('vim.cmd("silent wall")')
  d.equal(vim.fn.readfile(user), { 'import demo', 'demo.price(6)' })
  d.equal(vim.fn.readfile(d.work .. '/left_out.py'), { 'import demo', 'demo.total(7)' }, 'an ignored file')
end

function S.pairing_plugin()
  -- A pairing plugin adds the closing bracket; the suggestion contains it too.
  d.open({ '# CLOSE', '' })
  d.plant(WRONG_TEXT)
  d.lua('vim.keymap.set("i", "(", "()<C-g>U<Left>")')
  d.keys('Gicall(')
  d.wait('return vim.fn.getline(2) == "call()"')
  d.shown('call_arg')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(2) == "call(call_arg)"')
end

function S.non_ascii_text()
  d.open({ '' })
  d.plant(WRONG_TEXT)
  d.keys('is = "né😀" + word')
  d.shown('_word_g1_0()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == [[s = "né😀" + word_word_g1_0()]]')
end

function S.dos_line_endings()
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

function S.accepting_is_one_undo_step()
  d.open({ '' })
  d.plant('local cmd = vim.cmd; vim.cmd = setmetatable({}, { __index = cmd, __call = function(_, c) if not c:find("undolevels") then cmd(c) end end })')
  d.keys('idelta')
  d.shown('_delta_g1_0()')
  d.keys('<Tab>')
  d.wait('return vim.fn.getline(1) == "delta_delta_g1_0()"')
  d.keys('!<Esc>u')
  d.wait('return vim.api.nvim_get_mode().mode == "n"')
  d.equal(d.lines(), { 'delta' }, 'one undo removes the suggestion but not the typed text')
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
  d.equal(d.ghost(), nil, 'no suggestion while off')
  d.equal(d.lua('return require("c2l").status().disabledReason'), 'buffer', 'reason of the plugin')
  d.equal(d.lua('return vim.b.c2l_enabled'), false)
  d.lua('require("c2l").status({ buf = 0 }, function(status) _G.status = status end)')
  d.wait('return _G.status')
  d.equal(d.lua('return _G.status.disabledReason'), 'buffer', 'reason of the server')
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
  d.equal(d.ghost(), nil, 'no suggestion while off in all buffers')
  d.lua('vim.cmd("C2L enable")')
  d.shown('_zetas2_g1_0()')
end

function S.buffer_variable()
  -- `let b:c2l_enabled = 0` of an ftplugin applies before a server is running.
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
  ]]), 0, 'no ghost text remains in a buffer that was left')
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

function S.killed_server_restarts()
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
  assert(vim.tbl_contains(states, 'stopped'), 'no event reports the exit: ' .. vim.inspect(states))
end

function S.gives_up_after_crashes()
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

function S.settings_apply_at_once()
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
  d.equal(d.ghost(), nil, 'no automatic suggestion with manual')
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

function S.machine_setting_restarts_server()
  -- A setting that only a user may set reaches the server and restarts it when it changes.
  d.open({ '' }, { settings = { model = { id = 'one' } } })
  d.plant('require("c2l.config").machine_settings = function() return {} end')
  d.equal(d.lua('return require("c2l").status().model'), 'one')
  d.lua('require("c2l").configure({ model = { id = "two" } })')
  d.wait('local status = require("c2l").status(); return status.state == "ready" and status.model == "two"')
end

function S.outdated_request_is_cancelled()
  d.open({ '' })
  d.plant('require("c2l.client").cancel = function() end')
  d.count()
  d.keys('iSLOW:0.6 omicron')
  d.wait('return _G.sent > 0')
  d.rest(300)
  d.keys('s')
  d.wait('return _G.sent > 1')
  assert(d.lua('return _G.cancelled') > 0, 'the outdated request is cancelled')
  d.rest(400)
  d.equal(d.ghost(), nil, 'the result for the previous position is not shown')
  d.shown('_omicrons_g1_0()')
end

function S.hidden_while_menu_is_open()
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

function S.leaving_hides_suggestion()
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
  assert(d.ghost() ~= '_rho_g1_0()', 'hidden at another position')
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

function S.custom_keys()
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
  d.plant('require("c2l.accept").accept = function() return true end')
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
  d.shown('_chi_0()') -- the base model
end

function S.finetune()
  d.open({ '' })
  d.plant('require("c2l.protocol").Method.ADAPTER_DEEPEN = "c2l/adapter/regenerate"')
  d.lua('vim.cmd("C2L adapter deepen")')
  local training = '(require("c2l").status().adapter.deep or ""):match("^training, %d+ of 4000 steps$")'
  d.wait('return ' .. training)
  d.keys('ipsi')
  d.shown('_psi_g1_0()') -- completions work during fine-tuning
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

function S.explicit_request_without_result()
  d.open({ '# NOTHING', '' })
  d.plant('require("c2l.status").why = function(_, reply) reply(nil) end')
  d.lua([[
    _G.shown = ''
    vim.api.nvim_echo = function(chunks) _G.shown = _G.shown .. chunks[1][1] end
  ]])
  d.keys('Giomega')
  d.rest(500)
  d.equal(d.lua('return _G.shown'), '', 'silent while typing')
  d.keys('<M-\\>')
  d.wait('return _G.shown == "c2l: " .. require("c2l.protocol").SENTENCES.empty')
  d.keys('<Esc>')
  d.lua('vim.cmd("C2L status")')
  d.wait('return vim.bo.filetype == "c2l"')
  assert(table.concat(d.lines(), '\n'):find('last request ' .. d.lua('return require("c2l.protocol").SENTENCES.empty'), 1, true), vim.inspect(d.lines()))
end

function S.server_problem_is_shown()
  d.start()
  d.lua([[
    _G.shown = {}
    vim.notify = function(message, level) table.insert(_G.shown, { message, level }) end
  ]])
  d.plant('require("c2l.status").problem = function() end')
  local path = d.write('demo.py', { '' })
  d.lua('require("c2l").setup(...)', d.options({ settings = { completion = { colour = 1 } } }))
  d.edit(path)
  d.ready()
  d.wait('return #_G.shown > 0')
  local expected = 'c2l: c2l.completion.colour in the workspace settings is not a setting. See :help c2l-settings.'
  d.equal(d.lua('return _G.shown'), { { expected, vim.log.levels.WARN } }, 'shown once, with advice')
end

local LINE = 'return require("c2l").statusline()'

function S.statusline_shows_reason()
  d.open({ '' })
  d.plant('require("c2l.status").refresh = function() end')
  d.equal(d.lua(LINE), 'C2L ready #1')
  d.lua('vim.cmd("C2L language")')
  d.wait(LINE .. ' == "C2L off"')
  d.lua('vim.cmd("C2L toggle buffer")')
  d.wait(LINE .. ' == "C2L ready #1"') -- on in this buffer although the language is off
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

function S.switches_survive_restart()
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
  d.shown('_kappa_0()') -- the base model, as before
end

function S.trust()
  d.start()
  d.lua('vim.env.FAKE_LOG = ... .. "/engine.log"', d.work)
  d.plant('require("c2l.config").options.trusted = true; require("c2l.config").set = function() return {} end')
  local path = d.write('demo.py', { '' })
  d.lua('require("c2l").setup(...)', d.options({ trusted = false }))
  d.edit(path)
  local function trusted_folders()
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
  vim.wait(20000, function() return #trusted_folders() > 0 end)
  d.equal(trusted_folders(), { false })
  d.lua('require("c2l").trust(true)')
  vim.wait(20000, function() return #trusted_folders() > 1 end)
  d.equal(trusted_folders(), { false, true })
end

function S.read_ahead()
  d.start()
  d.lua('vim.env.FAKE_LOG = ... .. "/engine.log"', d.work)
  d.plant('require("c2l.cursor").rests = function() end')
  local path = d.write('demo.py', { 'first = 1', 'second = 2' })
  d.lua('require("c2l").setup(...)', d.options({}))
  d.edit(path)
  local function read(prefix)
    local log = d.work .. '/engine.log'
    for _, line in ipairs(vim.fn.filereadable(log) == 1 and vim.fn.readfile(log) or {}) do
      local ok, note = pcall(vim.json.decode, line)
      if ok and note.method == 'complete' and note.params.read_only and note.params.prefix == prefix then
        return true
      end
    end
  end
  d.wait('return require("c2l").status().state == "ready"')
  d.equal(vim.wait(20000, function() return read('') end), true, 'the start of the file, where it was opened')
  d.keys('jfn')
  d.equal(vim.wait(20000, function() return read('first = 1\nseco') end), true, 'where the cursor rests')
end

function S.deleting_asks_first()
  d.open({ '' })
  d.plant('vim.fn.confirm = function() return 1 end; require("c2l.switch").toggle = function() end')
  d.lua([[
    _G.shown, _G.asked = {}, 0
    vim.notify = function(message) table.insert(_G.shown, message) end
    local confirm = vim.fn.confirm
    vim.fn.confirm = function(...)
      _G.asked = _G.asked + 1
      return _G.answer
    end
  ]])
  d.listen('C2lAdapter')
  d.lua('_G.answer = 2; vim.cmd("C2L adapter reset")')
  d.equal(d.lua('return _G.asked'), 1, 'asks first')
  d.lua('vim.cmd("C2L adapter regenerate")')
  d.wait('return #(_G.events or {}) > 0')
  d.equal(d.lua('return _G.events[1].data.trigger'), 'regenerate', 'the adapter was not deleted')
  d.lua('_G.answer = 1; vim.cmd("C2L adapter reset")')
  d.wait('return #_G.events > 1 and _G.events[2].data.trigger == "reset"')
  d.lua('vim.cmd("C2L adapter reset force")')
  d.wait('return #_G.events > 2 and _G.asked == 2')
  d.lua('vim.cmd("C2L trigger")')
  assert(d.lua('return _G.shown[1]'):find('Insert mode'), 'explains why nothing is shown')
  d.lua('vim.cmd("C2L language")')
  d.wait(LINE .. ' == "C2L off"')
  d.lua('vim.cmd("C2L toggle buffer")')
  d.equal(d.lua('return vim.b.c2l_enabled'), true, 'toggle turns on what is off')
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

function S.invalid_options_are_reported()
  d.start()
  d.plant('require("c2l.config").set = function() return {} end')
  d.lua([[
    _G.shown = {}
    vim.notify = function(message) table.insert(_G.shown, message) end
    require('c2l').setup(vim.tbl_extend('force', ..., { nonsense = 1, hide_on_popup = 'x', keymaps = { acept = '<Tab>' } }))
  ]], d.options())
  local shown = d.lua('return _G.shown')
  table.sort(shown)
  d.equal(shown, {
    'c2l: option "hide_on_popup" must be a boolean.',
    'c2l: unknown key action "acept".',
    'c2l: unknown option "nonsense".',
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

--- Create a git repository with the plugin at its usual path, and return its URL. The fault: a plugin that draws nothing.
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

--- Return the code block of the help that contains `text`, with placeholders replaced.
local function help_example(text, replace)
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
  error('the help has no example with ' .. text)
end

local function as_lua(options) return ('(vim.json.decode([==[%s]==]))'):format(vim.json.encode(d.options(options))) end

--- Check an installation: ghost text, commands and help work. Return the path of the plugin's init.lua.
local function installed(init)
  d.start(init)
  d.wait('return vim.v.vim_did_enter == 1') -- the child answers RPC requests already during the installation
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
  local init = help_example('vim.pack', { REPOSITORY = repository(), [' {}'] = as_lua() })
  -- vim.pack asks before it installs; the test answers yes.
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
  local where = lazy(help_example("url = 'REPOSITORY'", { REPOSITORY = repository(), [' {}'] = as_lua() }))
  assert(where:find('/lazy/c2l_lsp/', 1, true), where)
end

function S.lazy_clone()
  local clone = repository():gsub('^file://', '') .. '/editors/neovim'
  local spec = help_example('dir = ', { ['/path/to/c2l_lsp/editors/neovim'] = clone, ['{},'] = as_lua() .. ',' })
  assert(lazy(spec):find(clone, 1, true))
end

-- Neovim's renderer instead of the plugin's: `vim.lsp.enable('c2l')` with the on_accept of :help c2l-core.
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
  d.keys('_wo') -- typed and accepted before the next result
  d.lua('_G.accept(...)', d.fault)
  d.wait('return #vim.fn.getline(1) > 8')
  d.rest(200)
  d.equal(d.lines(), { 'word_word_g1_0()' })
end

-- With the real server and the shipped model: the accepted text is the shown text, whatever it is.

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

-- The fault: accepting inserts a wrong text.
local WRONG_ACCEPT = [[
  local set_text = vim.api.nvim_buf_set_text
  vim.api.nvim_buf_set_text = function(buf, row, col, last, stop, lines)
    lines[1] = 'x' .. lines[1]
    return set_text(buf, row, col, last, stop, lines)
  end
]]

--- Return the lines of the buffer after accepting `ghost`.
local function lines_after_accepting(ghost)
  local at = d.lua('return vim.api.nvim_win_get_cursor(0)')
  local lines = d.lines()
  local line = lines[at[1]]
  local new = vim.split(line:sub(1, at[2]) .. ghost .. line:sub(at[2] + 1), '\n', { plain = true })
  local result = vim.list_slice(lines, 1, at[1] - 1)
  vim.list_extend(result, new)
  return vim.list_extend(result, vim.list_slice(lines, at[1] + 1))
end

local function wait_for_lines(expected, what)
  local got
  vim.wait(d.fault and 3000 or 20000, function()
    got = d.lines()
    return vim.deep_equal(got, expected)
  end, 20)
  d.equal(got, expected, what)
end

-- The model may have no suggestion for one prompt, but it has one for at least one of these.
local PROMPTS = { 'registry.', 'registry.register_widget(', 'registry.register_', 'print(registry' }

--- Restore the code and type prompts at its end until the model has a suggestion. Return ghost text and prompt.
local function show_suggestion()
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
  local ghost, prompt = show_suggestion()
  local expected = lines_after_accepting(ghost)
  d.keys('<Tab>')
  wait_for_lines(expected, 'the accepted text is the shown text')
  d.keys('<Esc>:write<CR>')
  d.wait('return not vim.bo.modified')
  d.equal(vim.fn.readfile(path), expected, 'file on disk')

  -- typing the start of the suggestion, then accepting the rest
  ghost = show_suggestion()
  expected = lines_after_accepting(ghost)
  d.rest(200)
  d.count()
  local typed = ghost:match('^[^\n]+'):sub(1, 3)
  d.say('shown:', vim.inspect(ghost), 'typed:', typed)
  for key in typed:gmatch('.') do
    d.keys(key == '<' and '<lt>' or key)
    ghost = ghost:sub(2)
    d.equal(d.ghost(), ghost, 'typing shortens the ghost text')
  end
  d.equal(d.lua('return _G.sent'), 0, 'no request while typing the suggestion')
  d.keys('<Tab>')
  wait_for_lines(expected, 'typed, then accepted')

  -- accepting a word, then dismissing the rest
  ghost, prompt = show_suggestion()
  local word = ghost:match('^[%w_]+') or ghost:match('^[^%w_%s]+')
  d.keys('<M-Right>')
  d.wait(('return vim.fn.getline(".") == %q'):format(prompt .. word))
  d.keys('<C-]>')
  d.hidden()

  -- cycling through candidates, then accepting the second
  local first = show_suggestion()
  d.keys('<M-]>')
  d.wait([[
    local ns = vim.api.nvim_get_namespaces()['c2l.ghost']
    local mark = vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true })[1]
    local chunks = mark and (mark[4].virt_lines and mark[4].virt_lines[#mark[4].virt_lines] or mark[4].virt_text)
    return chunks and chunks[2] and chunks[2][1]:match('%(%d/%d%)')
  ]])
  local second = d.shown()
  d.say('candidates:', vim.inspect(first), vim.inspect(second))
  expected = lines_after_accepting(second)
  d.keys('<Tab>')
  wait_for_lines(expected, 'the chosen candidate')

  -- turning off shows the reason, turning on works again
  d.lua('require("c2l").disable({ buf = 0 })')
  d.lua('vim.api.nvim_buf_set_lines(0, 0, -1, true, ...)', CODE)
  d.keys('<Esc>Gi' .. prompt)
  d.rest(1000)
  d.equal(d.ghost(), nil, 'no suggestion while off')
  d.lua('require("c2l").status({ buf = 0 }, function(status) _G.status = status end)')
  d.wait('return _G.status and _G.status.disabledReason == "buffer"')
  d.lua('require("c2l").enable({ buf = 0 })')
  d.shown()

  -- settings apply at once
  d.lua('require("c2l").configure({ completion = { trigger = "manual" } })')
  d.wait([[
    require('c2l').status({ buf = 0 }, function(status) _G.reason = status.disabledReason end)
    return _G.reason == 'manual'
  ]])
  d.lua('vim.api.nvim_buf_set_lines(0, 0, -1, true, ...)', CODE)
  d.keys('<Esc>Gi' .. prompt)
  d.rest(1000)
  d.equal(d.ghost(), nil, 'no automatic suggestion with manual')
  for _ = 1, 4 do -- on a busy machine a request may time out
    d.keys('<M-\\>')
    if vim.wait(15000, function() return d.ghost() ~= nil end, 20) then
      break
    end
  end
  d.shown()
end

--- Return the suggestion after each prompt; an empty string if the plugin reports that there is none.
local function suggestions_after_prompts()
  local texts = {}
  d.lua('vim.api.nvim_echo = function() _G.no_suggestion = true end')
  for _, prompt in ipairs({ 'import ', 'from zebra import ', 'def quokka_', 'result = wombat_' }) do
    d.keys('<Esc>')
    d.wait('return vim.api.nvim_get_mode().mode == "n"')
    d.lua('vim.api.nvim_buf_set_lines(0, 0, -1, true, { "" })')
    d.keys('i' .. prompt)
    d.lua('_G.no_suggestion = false')
    d.keys('<M-\\>')
    vim.wait(8000, function() return d.ghost() ~= nil or d.lua('return _G.no_suggestion') end, 20)
    table.insert(texts, d.ghost() or '')
  end
  return texts
end

function S.real_adapter()
  -- The fault: an adapter that is updated but has strength 0.
  d.open(CODE, d.fault and { settings = { adapter = { scale = 0 } } })
  d.listen('C2lAdapter')
  local texts = suggestions_after_prompts()
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
  -- The buffer with the prompts is indexed too, so a new generation may not contain the file yet.
  local stop, now = vim.uv.now() + (d.fault and 10000 or 60000), suggestions_after_prompts()
  while vim.deep_equal(now, texts) and vim.uv.now() < stop do
    d.rest(500)
    now = suggestions_after_prompts()
  end
  assert(not vim.deep_equal(now, texts), 'no suggestion has changed: ' .. vim.inspect(now))
end

function S.real_killed()
  d.open(CODE)
  d.plant('require("c2l.supervisor").exited = function() end')
  show_suggestion()
  for _, pid in ipairs(d.servers()) do
    vim.uv.kill(pid, 'sigkill')
  end
  d.hidden()
  d.wait('return require("c2l").status().state == "stopped"')
  d.wait(d.READY)
  local ghost = d.shown()
  local expected = lines_after_accepting(ghost)
  d.keys('<Tab>')
  wait_for_lines(expected, 'works again')
end

--- The opened folder has modules that are named like the server's; the fault starts the server with `python -m`.
function S.real_hostile_folder()
  d.start()
  d.plant([[
    local launch = require('c2l.launch')
    launch.isolation = function() return { cwd = vim.uv.cwd(), env = {} } end
    launch.command = function() return { vim.env.C2L_PYTHON, '-m', 'c2l_lsp', 'serve', '--stdio' } end
  ]])
  local mark = d.work .. '/../ran'
  vim.fn.mkdir(mark, 'p')
  for _, name in ipairs({ 'c2l_lsp/__init__', 'c2l_lsp/__main__', 'queue', 'random', 'click', 'torch', 'sitecustomize' }) do
    d.write(name .. '.py', { ("open('%s/%s', 'w').close()"):format(mark, name:gsub('/', '.')) })
  end
  local path = d.write('demo.py', CODE)
  d.lua('vim.cmd.cd(...); vim.env.PYTHONPATH = ...', d.work)
  d.lua('require("c2l").setup(...)', d.options())
  d.edit(path)
  local function ran() return vim.fn.readdir(mark) end
  vim.wait(180000, function() return #ran() > 0 or d.lua(d.READY) end, 100)
  d.equal(ran(), {}, 'modules of the folder that ran')
  d.wait(d.READY)
  show_suggestion()
  d.lua('vim.cmd("checkhealth c2l")')
  d.equal(ran(), {}, 'modules of the folder that ran for the health check')
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
  local expected = lines_after_accepting((show_suggestion()))
  d.keys('<Tab>')
  wait_for_lines(expected, 'in the second folder')
end

return S
