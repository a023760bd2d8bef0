--- Answers of the server as lines a person reads, in a scratch window. Asks nobody.
local protocol = require('c2l.protocol')

local M = {}

---@param seconds? number
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
local function use(one)
  if one.enabled == false then
    return 'no, the bare model is (:C2L adapter toggle)'
  elseif one.scale == 0 then
    return 'yes, without effect: its scale is 0'
  end
  return 'yes'
end

--- `one` may also be the answer to `c2l/adapter/info`, which has the norm.
---@param one c2l.AdapterStatus|{ norm?: number, recalled?: integer }
---@return string[]
function M.adapter(one)
  local lines = {
    'folder       ' .. one.folder,
    ('generation   %d, made %s'):format(one.generation or 0, ago(one.updatedAt)),
    ('made by      %s from %d files, %d waiting'):format(one.kind ~= '' and one.kind or '-', one.files or 0, one.pendingFiles or 0),
    'in use       ' .. use(one),
  }
  if one.norm then
    table.insert(lines, ('norm, scale  %.3f, %.2f'):format(one.norm, one.scale or 1))
  end
  if (one.recalled or 0) > 0 then
    table.insert(lines, ('recalls      %d tokens in their places'):format(one.recalled))
  end
  if (one.deep or '') ~= '' then
    table.insert(lines, 'training     ' .. one.deep)
  end
  if (one.message or '') ~= '' then
    table.insert(lines, 'note         ' .. one.message)
  end
  return lines
end

---@param status c2l.Status
---@param last? string why the last request got nothing
---@return string[]
function M.status(status, last)
  local lines = { 'state        ' .. status.state, 'message      ' .. status.message }
  local reason = status.disabledReason
  if reason then
    table.insert(lines, ('nothing here because: %s (%s)'):format(protocol.SENTENCES[reason] or reason, reason))
  end
  if last then
    table.insert(lines, 'last request ' .. last)
  end
  if status.model then
    local device = (status.device or '') ~= '' and ' on ' .. status.device or ''
    local memory = (status.memoryMb or 0) > 0 and (', %.0f MB'):format(status.memoryMb) or ''
    table.insert(lines, 'model        ' .. status.model .. device .. memory)
  end
  local latency = status.latencyMs
  if latency and (latency.p50 or 0) > 0 then
    table.insert(lines, ('latency      %.0f ms, 95 %% within %.0f ms'):format(latency.p50, latency.p95))
  end
  local adapters = status.folders or { status.adapter }
  for _, one in ipairs(adapters) do
    vim.list_extend(lines, { '' })
    vim.list_extend(lines, M.adapter(one))
  end
  return lines
end

---@param counts table
---@return string[]
function M.statistics(counts)
  local lines = {}
  for _, kind in ipairs({ { 'withAdapter', 'with the adapter' }, { 'withoutAdapter', 'without' } }) do
    local one = counts[kind[1]]
    local share = one.shown > 0 and 100 * one.accepted / one.shown or 0
    table.insert(
      lines,
      ('%-17s %d shown, %d accepted (%.0f %%), %d partly, %d rejected, %d keystrokes saved'):format(
        kind[2],
        one.shown,
        one.accepted,
        share,
        one.partlyAccepted,
        math.max(0, one.shown - one.accepted - one.partlyAccepted),
        one.acceptedChars
      )
    )
  end
  local week = (counts.weeks or {})[os.date('%G-W%V')] or { withAdapter = 0, withoutAdapter = 0 }
  table.insert(
    lines,
    ('this week         %d keystrokes saved: %d with the adapter, %d without'):format(
      week.withAdapter + week.withoutAdapter,
      week.withAdapter,
      week.withoutAdapter
    )
  )
  for _, kind in ipairs({ { 'latencyMsWithAdapter', 'with the adapter' }, { 'latencyMsWithoutAdapter', 'without' } }) do
    local latency = counts[kind[1]]
    if latency.count > 0 then
      table.insert(lines, ('latency           %.0f ms, 95 %% within %.0f ms: %s'):format(latency.p50, latency.p95, kind[2]))
    end
  end
  table.insert(
    lines,
    ('requests          %d: %d from the cache, %d typed along, %d overtaken'):format(
      counts.requests,
      counts.fromCache,
      counts.typedThrough,
      counts.superseded
    )
  )
  for reason, count in vim.spairs(counts.reasons or {}) do
    table.insert(lines, ('without text      %d: %s'):format(count, protocol.SENTENCES[reason] or reason))
  end
  table.insert(lines, 'These counts stay on this machine.')
  return lines
end

--- Show lines in a scratch window; `q` closes it.
---@param name string
---@param lines string[]
function M.show(name, lines)
  local buf = vim.api.nvim_create_buf(false, true)
  vim.api.nvim_buf_set_lines(buf, 0, -1, false, lines)
  vim.bo[buf].bufhidden, vim.bo[buf].modifiable, vim.bo[buf].filetype = 'wipe', false, 'c2l'
  vim.cmd(('botright %dsplit'):format(math.min(#lines + 1, 15)))
  vim.api.nvim_win_set_buf(0, buf)
  vim.wo.winfixheight, vim.wo.number, vim.wo.relativenumber = true, false, false
  vim.api.nvim_buf_set_name(buf, ('c2l://%s/%d'):format(name, buf))
  vim.keymap.set('n', 'q', '<Cmd>close<CR>', { buffer = buf, nowait = true })
end

return M
