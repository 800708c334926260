-- Opens a company that is closed, when all gateways that live have said what
-- they have of it. Nothing of it is counted yet then: that is read from the Book
-- when somebody asks. ARGV from 5: the epoch to be, the registry's name and the
-- number of the run, the latest moment of a hold that the gateway knows, and the
-- gateways that live. Answers "ok" and the epoch.
known = ''
local closed = enter()
if not closed then
  return { 'ok', meta[EPOCH] } -- somebody was faster
end
local epoch, registry, run, newest = ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
if string.sub(epoch, 1, #server) ~= server then
  return closed
end
local lives = {}
for i = 9, #ARGV do
  lives[ARGV[i]] = true
end

-- What gateways have said about this run.
local joined, kept = {}, {}
local old = call('HGETALL', COUNTS)
for i = 1, #old, 2 do
  if string.sub(old[i], 1, 1) == 'j' then
    local who, j = string.sub(old[i], 2), mp.unpack(old[i + 1])
    joined[who] = j[2] == registry and j[3] >= run
    if lives[who] then
      kept[#kept + 1] = old[i]
      kept[#kept + 1] = old[i + 1]
    end
  end
end
call('DEL', COUNTS, DUE, CLAIMS)
for i = 1, #kept, 2 do
  call('HSET', COUNTS, kept[i], kept[i + 1])
end

meta = { epoch, 1, 0, newest, 0, 0, real + lease / 2, real }
call('ZADD', DUE, '-inf', '')
local all = call('HGETALL', ATTEMPTS)
for i = 1, #all, 2 do
  local id, r = all[i], all[i] ~= '' and mp.unpack(all[i + 1])
  if not r then
    -- the guard, which is set below
  elseif r[SHIPPED] > 0 or (r[STATE] ~= 'x' and lives[r[OWNER]] and not joined[r[OWNER]]) then
    -- It is in the store, or its owner lives and does not know it: what we have
    -- is older than that.
    call('HDEL', ATTEMPTS, id)
  else
    local at = real + LATE
    if r[STATE] == 'x' then
      at = real + CANCELLED
    elseif r[STATE] == 'h' or r[OPEN] == 1 then
      at = real + lease
      for _, n in ipairs(r[RATES]) do
        fetch({ n })
        local w = fields[n] or { 0, 0, 0, 0, 0, 0, 0, now, 0, 0 }
        w[HELD] = w[HELD] + (r[STATE] == 'h' and r[TOKENS] or 0)
        w[OPENED] = w[OPENED] + r[OPEN]
        fields[n], changed[n] = w, true
      end
    end
    if runs(r) and r[CLAIM] and r[CLAIM] ~= '' then
      call('HSET', CLAIMS, r[CLAIM], id)
    end
    meta[NEWEST] = max(meta[NEWEST], r[AT])
    call('ZADD', DUE, at, id)
  end
end
call('HSET', ATTEMPTS, '', epoch)
store()
for _, key in ipairs(KEYS) do
  call('PEXPIRE', key, IDLE)
end
return { 'ok', epoch }
