-- Every script about a company begins with this. KEYS are the company's: its
-- counts, its attempts, what is due, and which attempt has which claim. ARGV[1] is the moment in microseconds
-- that decides about limits and periods, which only tests give; [2] the gateway
-- that asks; [3] the epoch it knows the company by, "" if it has nothing there;
-- [4] the lease, microseconds.
local COUNTS, ATTEMPTS, DUE, CLAIMS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call, mp = redis.call, cmsgpack
local max, min, fmod = math.max, math.min, math.fmod

local SECOND = 1000000
local MINUTE = 60 * SECOND
local READ = 10 * SECOND -- the longest that a read of the Book is waited for
local CANCELLED = 600 * SECOND -- how long the id of a hold that nobody took is refused
local LATE = 40 * 86400 * SECOND -- how long an attempt is known that is never shipped
local IDLE = 40 * 86400 * 1000 -- how long a company is kept that nobody asks for, milliseconds
local LARGEST = 9007199254740991 -- numbers are exact up to here

-- real is the time by which leases end and reads of the Book are waited for.
local t = call('TIME')
local real = tonumber(t[1]) * SECOND + tonumber(t[2])
local now = tonumber(ARGV[1]) or real
local gateway, known, lease = ARGV[2], ARGV[3], tonumber(ARGV[4])

-- Another after a restart and a failover: then writes may be lost.
local server = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')

-- The field "" of COUNTS, with these places:
local EPOCH = 1 -- the server, and what tells one opening of the company from another
local ROUND = 2 -- the counts of other rounds are to be read from the Book again
local READS = 3 -- how many reads of the Book have begun
local NEWEST = 4 -- the latest moment of any hold
local MARK, UNTIL = 5, 6 -- no hold is before MARK until then: the Book may be being read up to it
local CALM = 7 -- no lease ends before: the server was away, and owners could not renew
local SEEN = 8 -- when the company was last written to
local meta
local found -- the attempt that enter was asked for, packed
local due -- ids of attempts of which the time has come

-- enter reads what the company is. It returns why it is closed, or that the
-- gateway must join it; nil where it is open.
local function enter(id)
  local packed = call('HGET', COUNTS, '')
  local there = call('HMGET', ATTEMPTS, '', id or '')
  due = call('ZRANGEBYSCORE', DUE, '-inf', real, 'LIMIT', 0, 9)
  local guard = due[1] == ''
  if not packed and not there[1] and not guard then
    return { 'closed', server, 'new', '' }
  end
  if not packed or not guard or mp.unpack(packed)[EPOCH] ~= there[1] then
    return { 'closed', server, 'lost', there[1] or (packed and mp.unpack(packed)[EPOCH]) or '' }
  end
  meta = mp.unpack(packed)
  if string.sub(meta[EPOCH], 1, #server) ~= server then
    return { 'closed', server, 'moved', meta[EPOCH] }
  end
  if known ~= '' and known ~= meta[EPOCH] then
    return { 'join', meta[EPOCH] }
  end
  found = there[2]
  if real - meta[SEEN] > lease / 2 then
    meta[CALM], meta[SEEN] = real + lease / 4, real
    call('HSET', COUNTS, '', mp.pack(meta))
  end
  return nil
end

-- moment is when an attempt that begins now is held: while the Book may be being
-- read, not before the mark.
local function moment()
  if real < meta[UNTIL] then
    return max(now, meta[MARK])
  end
  return now
end

-- What was read of COUNTS, by field, and which of it is to be written.
local fields, changed = {}, {}

local function fetch(names)
  local want = {}
  for _, n in ipairs(names) do
    if fields[n] == nil then
      fields[n] = false
      want[#want + 1] = n
    end
  end
  if #want > 0 then
    local got = call('HMGET', COUNTS, unpack(want))
    for i, n in ipairs(want) do
      if got[i] then
        fields[n] = mp.unpack(got[i])
      end
    end
  end
end

-- store writes what has changed.
local function store()
  meta[SEEN] = real
  local args = { '', mp.pack(meta) }
  for n in pairs(changed) do
    args[#args + 1] = n
    args[#args + 1] = mp.pack(fields[n])
    if #args >= 1000 then
      call('HSET', COUNTS, unpack(args))
      args = { '', mp.pack(meta) }
    end
  end
  call('HSET', COUNTS, unpack(args))
end

-- A limit per minute: its limits of requests, tokens and open calls, what is
-- used of the first two with the parts of a minute that are refilled already,
-- when that was, and what is held and open. bucket.go says what it means; here
-- the time is in microseconds.
local RPM, TPM, CONCURRENT, REQUESTED, RPART, USED, TPART, WHEN, HELD, OPENED = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

local function refill(used, part, limit, elapsed)
  if limit <= 0 or elapsed >= 2 * MINUTE then -- owes at most two minutes
    return 0, 0
  end
  if used > 2 * limit then
    used, part = 2 * limit, 0
  end
  if used == 0 or elapsed <= 0 then
    return used, part
  end
  local rest = fmod(limit, MINUTE)
  local n = rest * elapsed + part -- below 2^53
  part = fmod(n, MINUTE)
  local whole = (limit - rest) / MINUTE * elapsed + (n - part) / MINUTE
  if whole >= used then
    return 0, 0
  end
  return used - whole, part
end

local function pass(w)
  local elapsed = now - w[WHEN]
  w[REQUESTED], w[RPART] = refill(w[REQUESTED], w[RPART], w[RPM], elapsed)
  w[USED], w[TPART] = refill(w[USED], w[TPART], w[TPM], elapsed)
  if elapsed > 0 or elapsed < -MINUTE then -- a clock that was set back is not waited for
    w[WHEN] = now
  end
end

-- An attempt. STATE is "h" held, "e" ended, "s" swept, which is ended by its
-- lease, or "x" cancelled: nobody took it. AMOUNT and TOKENS are what is held,
-- or was used. SHIPPED is 0, or the number of the read that is the first to find
-- it in the store. CLAIM is '' for none, as it is for one that an older gateway
-- wrote, which has no such place.
local STATE, OWNER, AT, AMOUNT, TOKENS, REQUESTS, PROJECT, KEY, AGENT, USER, LENT, ENTRY, SHIPPED, OPEN, RATES, CLAIM =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16

-- owners returns the fields of those whose attempt it is.
local function owners(r)
  local n = {}
  if r[ENTRY] == 1 then
    n[1] = 'oc'
    if r[PROJECT] ~= '' then
      n[#n + 1] = 'op' .. r[PROJECT]
    end
    if r[KEY] ~= '' then
      n[#n + 1] = 'ok' .. r[KEY]
    end
    if r[AGENT] ~= '' then
      n[#n + 1] = 'oa' .. r[AGENT]
    end
    if r[USER] ~= '' then
      n[#n + 1] = 'ou' .. r[USER]
    end
    if r[LENT] == 1 then
      n[#n + 1] = 'ol'
    end
  end
  return n
end

-- An owner has all its counts in one list, SIZE places for each.
local FROM, TO, OF_ROUND, S_AMOUNT, S_TOKENS, S_REQUESTS, H_AMOUNT, H_TOKENS, SIZE = 0, 1, 2, 3, 4, 5, 6, 7, 8

-- each calls f for every count that the attempt counts for.
local function each(r, f)
  local names = owners(r)
  fetch(names)
  for _, n in ipairs(names) do
    local c = fields[n] or {}
    for i = 1, #c, SIZE do
      if c[i + OF_ROUND] == meta[ROUND] and c[i + FROM] <= r[AT] and r[AT] < c[i + TO] then
        f(c, i)
        changed[n] = true
      end
    end
  end
end

local function add(c, i, n)
  c[i] = min(max(c[i] + n, 0), LARGEST)
end

local function hold(r)
  each(r, function(c, i)
    add(c, i + H_AMOUNT, r[AMOUNT])
    add(c, i + H_TOKENS, r[TOKENS])
    add(c, i + S_REQUESTS, r[REQUESTS])
  end)
end

-- limits calls f for every limit per minute of the attempt, passed up to now.
local function limits(r, f)
  fetch(r[RATES])
  for _, n in ipairs(r[RATES]) do
    local w = fields[n]
    if w then
      pass(w)
      f(w)
      changed[n] = true
    end
  end
end

-- settle books what was used in place of what was held, or of what was booked
-- by the lease.
local function settle(r, amount, tokens, state)
  if r[STATE] == 'h' then
    each(r, function(c, i)
      add(c, i + H_AMOUNT, -r[AMOUNT])
      add(c, i + H_TOKENS, -r[TOKENS])
      add(c, i + S_AMOUNT, amount)
      add(c, i + S_TOKENS, tokens)
    end)
    limits(r, function(w)
      w[HELD] = max(w[HELD] - r[TOKENS], 0)
      if w[TPM] > 0 then
        w[USED] = w[USED] + tokens
        if w[USED] > 2 * w[TPM] then
          w[USED], w[TPART] = 2 * w[TPM], 0
        end
      end
    end)
  else
    each(r, function(c, i)
      add(c, i + S_AMOUNT, amount - r[AMOUNT])
      add(c, i + S_TOKENS, tokens - r[TOKENS])
    end)
  end
  r[STATE], r[AMOUNT], r[TOKENS] = state, amount, tokens
end

local function release(r)
  if r[OPEN] == 1 then
    limits(r, function(w)
      w[OPENED] = max(w[OPENED] - 1, 0)
    end)
    r[OPEN] = 0
  end
end

-- let lets go of what the attempt has of limits per minute.
local function let(r)
  if r[STATE] == 'h' then
    limits(r, function(w)
      w[HELD] = max(w[HELD] - r[TOKENS], 0)
    end)
  end
  release(r)
end

local function runs(r)
  return r[STATE] == 'h' or (r[OPEN] == 1 and r[STATE] ~= 'x')
end

local function unclaim(id, r)
  if r and r[CLAIM] and r[CLAIM] ~= '' and call('HGET', CLAIMS, r[CLAIM]) == id then
    call('HDEL', CLAIMS, r[CLAIM])
  end
end

-- claimed tells whether an attempt that runs has the claim. What stands in
-- CLAIMS is only where to look: the attempt says whether it is so.
local function claimed(claim)
  local id = claim ~= '' and call('HGET', CLAIMS, claim)
  local packed = id and call('HGET', ATTEMPTS, id)
  return packed and runs(mp.unpack(packed))
end

-- put writes an attempt. Its claim ends with it.
local function put(id, r, at)
  call('HSET', ATTEMPTS, id, mp.pack(r))
  call('ZADD', DUE, at, id)
  if not runs(r) then
    unclaim(id, r)
  elseif r[CLAIM] and r[CLAIM] ~= '' then
    call('HSET', CLAIMS, r[CLAIM], id)
  end
end

local function drop(id, r)
  unclaim(id, r)
  call('HDEL', ATTEMPTS, id)
  call('ZREM', DUE, id)
end

-- sweep ends what is due: attempts whose lease has ended book all they held.
local function sweep(ids)
  if real < meta[CALM] then
    return
  end
  for _, id in ipairs(ids) do
    local packed = id ~= '' and call('HGET', ATTEMPTS, id)
    local r = packed and mp.unpack(packed)
    if not r or r[SHIPPED] > 0 or (r[STATE] ~= 'h' and r[OPEN] == 0) then
      if id ~= '' then
        drop(id, r)
      end
    else
      if r[STATE] == 'h' then
        settle(r, r[AMOUNT], r[TOKENS], 's')
      end
      release(r)
      put(id, r, real + LATE)
    end
  end
end

-- find returns where the count of a period is in the list of its owner, nil if
-- it is to be read.
local function find(name, from, to)
  local c = fields[name] or {}
  for i = 1, #c, SIZE do
    if c[i + FROM] == from and c[i + TO] == to and c[i + OF_ROUND] == meta[ROUND] then
      return i
    end
  end
  return nil
end
