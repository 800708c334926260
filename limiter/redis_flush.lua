-- Takes in what has become of attempts. ARGV from 5: of each an operation, an
-- id, an amount and tokens. The operations are "e" it ended and used that much;
-- "r" its call is no longer open; "x" nobody took it, or will; "s" it is in the
-- store for good; "l" its owner lives. Every one may come twice, or late.
-- Answers "ok", the epoch, and the ids of which the lease was over.
local closed = enter()
if closed then
  return closed
end
local answer = { 'ok', meta[EPOCH] }
local over = real + LATE

local function get(id)
  local packed = call('HGET', ATTEMPTS, id)
  return packed and mp.unpack(packed)
end

-- later is when an attempt is due that has ended or is no longer open.
local function later(r)
  if r[STATE] ~= 'h' and r[OPEN] == 0 then
    return over
  end
  return real + lease
end

local operations = {
  e = function(id, r, amount, tokens)
    if r and (r[STATE] == 'h' or r[STATE] == 's') then
      settle(r, amount, tokens, 'e')
      put(id, r, later(r))
    end
  end,

  r = function(id, r)
    if r and r[OPEN] == 1 and r[STATE] ~= 'x' then
      release(r)
      put(id, r, later(r))
    end
  end,

  x = function(id, r)
    if r and r[STATE] == 'x' then
      return
    end
    if r then
      each(r, function(c, i)
        local held = r[STATE] == 'h'
        add(c, i + (held and H_AMOUNT or S_AMOUNT), -r[AMOUNT])
        add(c, i + (held and H_TOKENS or S_TOKENS), -r[TOKENS])
        add(c, i + S_REQUESTS, -r[REQUESTS])
      end)
      let(r)
      unclaim(id, r)
    end
    put(id, { 'x', gateway, real, 0, 0, 0, '', '', '', '', 0, 0, 0, 0, {} }, real + CANCELLED)
  end,

  s = function(id, r)
    if r and r[STATE] == 'e' then
      if r[SHIPPED] == 0 then
        r[SHIPPED] = meta[READS] + 1
        put(id, r, real + READ)
      end
      return
    end
    -- Its owner died before it could say what it used, or it was never held
    -- here: only the Book knows.
    if r then
      let(r)
      drop(id, r)
    end
    meta[ROUND] = meta[ROUND] + 1
  end,

  l = function(id, r)
    if r and r[STATE] ~= 's' and r[STATE] ~= 'x' then
      call('ZADD', DUE, real + lease, id)
    else
      answer[#answer + 1] = id
    end
  end,
}

for p = 5, #ARGV, 4 do
  local id = ARGV[p + 1]
  operations[ARGV[p]](id, get(id), tonumber(ARGV[p + 2]), tonumber(ARGV[p + 3]))
end
-- After them: an owner that comes in time is not too late.
due = call('ZRANGEBYSCORE', DUE, '-inf', real, 'LIMIT', 0, 9)
sweep(due)
store()
return answer
