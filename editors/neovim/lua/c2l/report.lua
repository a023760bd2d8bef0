--- Formats results of the server as text and shows them in a scratch window. Sends no requests.
local protocol = require('c2l.protocol')

local M = {}

---@param name string
---@param value string
local function row(name, value) return ('%-12s %s'):format(name, value) end

---@param latency c2l.Latency
local function latency_text(latency) return ('median %.0f ms, 95th percentile %.0f ms'):format(latency.p50, latency.p95) end

---@param seconds? number since the epoch
local function ago(seconds)
  if not seconds or seconds <= 0 then
    return 'never'
  end
  local past = math.max(0, os.time() - math.floor(seconds))
  if past < 120 then
    return past .. ' s ago'
  elseif past < 7200 then
    return math.floor(past / 60) .. ' min ago'
  end
  return os.date('%Y-%m-%d %H:%M', math.floor(seconds)) --[[@as string]]
end

---@param one c2l.AdapterStatus
local function in_use(one)
  if one.enabled == false then
    return 'no, the base model is in use (:C2L adapter toggle)'
  elseif one.scale == 0 then
    return 'no, its strength is 0'
  end
  return 'yes'
end

--- Returns the lines on one adapter. `one` may be the result of `c2l/adapter/info`, which adds norm and index.
---@param one c2l.AdapterStatus|{ norm?: number, recalled?: integer, keyed?: integer }
---@return string[]
function M.adapter(one)
  local lines = {
    row('folder', one.folder),
    row('generation', ('%d, updated %s'):format(one.generation or 0, ago(one.updatedAt))),
    row('hypernetwork', (one.kind or '') ~= '' and one.kind or '-'),
    row('files', ('%d indexed, %d waiting'):format(one.files or 0, one.pendingFiles or 0)),
    row('in use', in_use(one)),
  }
  if one.norm then
    table.insert(lines, row('strength', ('%.2f, norm %.3f'):format(one.scale or 1, one.norm)))
  end
  if (one.recalled or 0) > 0 then
    table.insert(lines, row('index', ('%d tokens, %d with neural keys'):format(one.recalled, one.keyed or 0)))
  end
  if (one.deep or '') ~= '' then
    table.insert(lines, row('fine-tuning', one.deep))
  end
  if (one.message or '') ~= '' then
    table.insert(lines, row('note', one.message))
  end
  return lines
end

--- Returns the lines of the status.
---@param status c2l.Status
---@param last? string why the last request returned nothing
---@return string[]
function M.status(status, last)
  local lines = { row('state', status.state), row('message', status.message) }
  local reason = status.disabledReason
  if reason then
    table.insert(lines, row('this buffer', ('%s (%s)'):format(protocol.SENTENCES[reason] or reason, reason)))
  end
  if last then
    table.insert(lines, row('last request', last))
  end
  if status.model then
    local device = (status.device or '') ~= '' and ' on ' .. status.device or ''
    local memory = (status.memoryMb or 0) > 0 and (', %.0f MB'):format(status.memoryMb) or ''
    table.insert(lines, row('model', status.model .. device .. memory))
  end
  local latency = status.latencyMs
  if latency and (latency.p50 or 0) > 0 then
    table.insert(lines, row('latency', latency_text(latency)))
  end
  local adapters = status.folders or { status.adapter }
  for _, one in ipairs(adapters) do
    vim.list_extend(lines, { '' })
    vim.list_extend(lines, M.adapter(one))
  end
  return lines
end

--- Returns the lines of the statistics.
---@param counts table result of `c2l/statistics`
---@return string[]
function M.statistics(counts)
  local with, without = counts.withAdapter, counts.withoutAdapter
  local lines = { ('%-24s %13s %13s'):format('', 'with adapter', 'no adapter') }
  local function add(name, value)
    table.insert(lines, ('%-24s %13s %13s'):format(name, value(with, 'With'), value(without, 'Without')))
  end
  add('shown', function(one) return one.shown end)
  add('accepted', function(one) return one.accepted end)
  add('partly accepted', function(one) return one.partlyAccepted end)
  add('rejected', function(one) return math.max(0, one.shown - one.accepted - one.partlyAccepted) end)
  add('acceptance rate', function(one) return one.shown > 0 and ('%.0f %%'):format(100 * one.accepted / one.shown) or '-' end)
  add('accepted characters', function(one) return one.acceptedChars end)
  for _, percentile in ipairs({ { 'latency, median', 'p50' }, { 'latency, 95th percentile', 'p95' } }) do
    add(percentile[1], function(_, which)
      local latency = counts[('latencyMs%sAdapter'):format(which)]
      return latency.count > 0 and ('%.0f ms'):format(latency[percentile[2]]) or '-'
    end)
  end
  local week = (counts.weeks or {})[os.date('%G-W%V')] or { withAdapter = 0, withoutAdapter = 0 }
  vim.list_extend(lines, {
    ('%-24s %13d %13d'):format('keystrokes saved (week)', week.withAdapter, week.withoutAdapter),
    '',
    row('requests', tostring(counts.requests)),
    row('  cached', tostring(counts.fromCache)),
    row('  typed along', tostring(counts.typedThrough)),
    row('  cancelled', tostring(counts.superseded)),
  })
  if next(counts.reasons or {}) then
    vim.list_extend(lines, { '', 'Requests without a suggestion:' })
  end
  for reason, count in vim.spairs(counts.reasons or {}) do
    table.insert(lines, ('%6d  %s'):format(count, protocol.SENTENCES[reason] or reason))
  end
  return vim.list_extend(lines, { '', 'All counts stay on this machine.' })
end

--- Show lines in a scratch window; `q` closes it.
---@param name string
---@param lines string[]
function M.show(name, lines)
  local buf = vim.api.nvim_create_buf(false, true)
  vim.api.nvim_buf_set_lines(buf, 0, -1, false, lines)
  vim.bo[buf].bufhidden, vim.bo[buf].modifiable, vim.bo[buf].filetype = 'wipe', false, 'c2l'
  vim.cmd(('botright %dsplit'):format(math.min(#lines + 1, 20)))
  vim.api.nvim_win_set_buf(0, buf)
  vim.wo.winfixheight, vim.wo.number, vim.wo.relativenumber = true, false, false
  vim.api.nvim_buf_set_name(buf, ('c2l://%s/%d'):format(name, buf))
  vim.keymap.set('n', 'q', '<Cmd>close<CR>', { buffer = buf, nowait = true })
end

return M
