--- Tells the server where the cursor rests: it reads the text there before the first key is typed.
local client = require('c2l.client')
local protocol = require('c2l.protocol')

local M = {}

local DELAY_MS = 100
local timer

local function report()
  local buf, win = vim.api.nvim_get_current_buf(), vim.api.nvim_get_current_win()
  local server = client.get(buf)
  if server then
    local params = vim.lsp.util.make_position_params(win, server.offset_encoding)
    client.notify(server, protocol.DID_MOVE_CURSOR, params)
  end
end

--- Report the cursor's place soon. Many calls within the delay make one report.
function M.rests()
  timer = timer or vim.uv.new_timer()
  timer:start(DELAY_MS, 0, vim.schedule_wrap(report))
end

return M
