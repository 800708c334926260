-- A gateway says all that it has of the company: what runs, and what has ended
-- and is not known to be in the store. What it does not say and is its own is
-- dropped. So it is said again after data was lost, and by a gateway that was
-- away. ARGV from 5: a number that rises with each time, the registry's name and
-- the number of the last run known, then of each attempt its id, state ("?" where
-- Redis is being asked for it, and knows best), moment, amount, tokens, requests, project, key, agent, user, lent, entry, open,
-- claim, how many limits per minute and their fields. Answers "ok", the epoch ("" while the
-- company is closed), and the ids of which the lease was over.
local number = tonumber(ARGV[5])
local mine = 'j' .. gateway
local believed = known
known = ''
local closed = enter()
local epoch = not closed and meta[EPOCH] or ''
if epoch ~= '' and epoch == believed then
  return { 'ok', epoch } -- all of it is there
end
local before = call('HGET', COUNTS, mine)
if before and mp.unpack(before)[1] >= number then
  return { 'ok', epoch } -- it comes late
end
call('HSET', COUNTS, mine, mp.pack({ number, ARGV[6], tonumber(ARGV[7]), real }))

local answer, said, anew = { 'ok', epoch }, {}, false

-- An attempt that is new here, or gone: only the Book knows what it is in.
local function enlist(r)
  if closed then
    return
  end
  anew = true
  for _, n in ipairs(r[RATES]) do
    fetch({ n })
    fields[n] = fields[n] or { 0, 0, 0, 0, 0, 0, 0, now, 0, 0 }
  end
  limits(r, function(w)
    if r[STATE] == 'h' then
      w[HELD] = w[HELD] + r[TOKENS]
    end
    w[OPENED] = w[OPENED] + r[OPEN]
  end)
end

local p = 8
while ARGV[p] do
  local id, rates = ARGV[p], {}
  for i = 1, tonumber(ARGV[p + 14]) do
    rates[i] = ARGV[p + 14 + i]
  end
  local r = {
    ARGV[p + 1], gateway, tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3]), tonumber(ARGV[p + 4]), tonumber(ARGV[p + 5]),
    ARGV[p + 6], ARGV[p + 7], ARGV[p + 8], ARGV[p + 9], tonumber(ARGV[p + 10]), tonumber(ARGV[p + 11]), 0, tonumber(ARGV[p + 12]), rates, ARGV[p + 13],
  }
  p = p + 15 + #rates
  said[id] = true
  local packed = call('HGET', ATTEMPTS, id)
  local old = packed and mp.unpack(packed)
  if r[STATE] == '?' then
    -- it is not dropped
  elseif not old or (closed and old[STATE] ~= 's') then
    enlist(r)
    put(id, r, real + (r[STATE] == 'e' and r[OPEN] == 0 and LATE or lease))
  elseif old[STATE] == 's' and r[STATE] == 'h' then
    answer[#answer + 1] = id
  elseif closed then
    old[STATE], old[AMOUNT], old[TOKENS] = r[STATE], r[AMOUNT], r[TOKENS]
    put(id, old, real + LATE)
  else
    if old[AT] ~= r[AT] or (old[STATE] == 'h' and r[STATE] == 'h' and old[AMOUNT] ~= r[AMOUNT]) then
      -- Redis took it, and the gateway did not hear of it and took it itself.
      old[AT], anew = r[AT], true
      if r[STATE] == 'h' then
        old[AMOUNT] = r[AMOUNT]
      end
    end
    if r[STATE] == 'e' and old[STATE] ~= 'e' then
      settle(old, r[AMOUNT], r[TOKENS], 'e')
    end
    if r[OPEN] == 0 then
      release(old)
    end
    if old[SHIPPED] == 0 then
      put(id, old, real + (old[STATE] == 'e' and old[OPEN] == 0 and LATE or lease))
    end
  end
end

local all = call('HGETALL', ATTEMPTS)
for i = 1, #all, 2 do
  local r = all[i] ~= '' and mp.unpack(all[i + 1])
  if r and r[OWNER] == gateway and r[STATE] ~= 'x' and not said[all[i]] and r[SHIPPED] == 0 then
    if not closed then
      let(r)
      anew = true
    end
    drop(all[i], r)
  end
end
if not closed then
  if anew then
    meta[ROUND] = meta[ROUND] + 1
  end
  store()
end
return answer
