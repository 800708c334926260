-- Takes one attempt from every limit and budget, or nothing. ARGV from 5: id,
-- whether it has an entry, requests, tokens, amount, least amount, project, key,
-- agent, user, lent, how many windows a company may have, then of each limit its
-- field, requests, tokens and open calls, then of each budget its owner's field,
-- unit, limit, and the beginnings of a period, the next and the one after; last
-- the claim.
--
-- Answers "held" or "full", the moment, the epoch, the amount, and the state of
-- every limit and budget; "count" where budgets are to be read first; "clock"
-- where the moment is in none of the periods given; "many" without windows left;
-- "twice" for an id that was there; "claimed" where another has the claim.
local id = ARGV[5]
local closed = enter(id)
if closed then
  return closed
end
if found then
  return { 'twice' }
end
sweep(due)
local claim = ARGV[#ARGV]
if claimed(claim) then
  if next(changed) then
    store()
  end
  return { 'claimed' }
end

local at = moment()
local r = {
  'h', gateway, at, tonumber(ARGV[9]), tonumber(ARGV[8]), tonumber(ARGV[7]),
  ARGV[11], ARGV[12], ARGV[13], ARGV[14], tonumber(ARGV[15]), tonumber(ARGV[6]), 0, 1, {}, claim,
}
local least, windows = tonumber(ARGV[10]), tonumber(ARGV[16])
local p, nLimits = 18, tonumber(ARGV[17])
for i = 1, nLimits do
  r[RATES][i] = ARGV[p + 4 * (i - 1)]
end
local all = owners(r)
for i = 1, nLimits do
  all[#all + 1] = r[RATES][i]
end
fetch(all)

local blocked, new = false, 0
for i, n in ipairs(r[RATES]) do
  if not fields[n] then
    fields[n] = { 0, 0, 0, 0, 0, 0, 0, now, 0, 0 }
    new = new + 1
  end
  local w = fields[n]
  w[RPM], w[TPM], w[CONCURRENT] = tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3])
  p = p + 4
  pass(w)
  blocked = blocked or (w[CONCURRENT] > 0 and w[OPENED] >= w[CONCURRENT])
    or (w[RPM] > 0 and r[REQUESTS] > 0 and w[REQUESTED] + r[REQUESTS] > w[RPM])
    or (w[TPM] > 0 and w[USED] + w[HELD] + r[TOKENS] > w[TPM])
end

local budgets, uncounted = {}, { 'count', meta[EPOCH] }
for i = 1, tonumber(ARGV[p]) do
  local b = p + 1 + 6 * (i - 1)
  local from, to = tonumber(ARGV[b + 3]), tonumber(ARGV[b + 4])
  if at >= to then
    from, to = to, tonumber(ARGV[b + 5])
  end
  if at < from or at >= to then
    return { 'clock', at }
  end
  local name = ARGV[b]
  local place = find(name, from, to)
  budgets[i] = { fields[name], place, from, to, ARGV[b + 1], tonumber(ARGV[b + 2]) }
  if not place then
    uncounted[#uncounted + 1] = i
    uncounted[#uncounted + 1] = from
    uncounted[#uncounted + 1] = to
  end
end
if not blocked and #uncounted > 2 then
  return uncounted
end

if not blocked then
  for _, b in ipairs(budgets) do
    local c, i, unit, limit = b[1], b[2], b[5], b[6]
    local rest, need
    if unit == 'r' then
      rest, need = limit - c[i + S_REQUESTS], r[REQUESTS]
    elseif unit == 't' then
      rest, need = limit - c[i + S_TOKENS] - c[i + H_TOKENS], r[TOKENS]
    else
      rest, need = limit - c[i + S_AMOUNT] - c[i + H_AMOUNT], least
    end
    if need > 0 and need > rest then
      blocked = true
      break
    end
    if unit == 'u' then
      r[AMOUNT] = min(r[AMOUNT], max(rest, 0))
    end
  end
end
if not blocked and new > 0 and call('HLEN', COUNTS) + new > windows then
  return { 'many' }
end

if not blocked then
  for _, n in ipairs(r[RATES]) do
    local w = fields[n]
    if w[RPM] > 0 then
      w[REQUESTED] = w[REQUESTED] + r[REQUESTS]
    end
    w[HELD] = w[HELD] + r[TOKENS]
    w[OPENED] = w[OPENED] + 1
    changed[n] = true
  end
  hold(r)
  put(id, r, real + lease)
  meta[NEWEST] = max(meta[NEWEST], at)
end
if not blocked or next(changed) then
  -- Where it is refused, what is new of the limits is not written.
  store()
end

local answer = { blocked and 'full' or 'held', at, meta[EPOCH], r[AMOUNT] }
local function say(n)
  answer[#answer + 1] = n
end
for _, n in ipairs(r[RATES]) do
  for i = REQUESTED, OPENED do
    say(fields[n][i])
  end
end
for _, b in ipairs(budgets) do
  local c, i = b[1], b[2]
  say(b[3])
  say(b[4])
  say(i and 1 or 0)
  for place = S_AMOUNT, H_TOKENS do
    say(i and c[i + place] or 0)
  end
end
return answer
