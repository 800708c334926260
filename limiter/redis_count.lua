-- Ends a read of the Book: what it said, and what is known of the attempts that
-- it was not asked for or that came since, is what was used. ARGV from 5: the
-- number of the read, its round, when it began, how many windows a company may
-- have, then of each count its owner's field, from, to, amount, tokens, requests.
-- Answers "ok", "late" where it must be read again, or "many" without windows.
local closed = enter()
if closed then
  return closed
end
local number, began, windows = tonumber(ARGV[5]), tonumber(ARGV[7]), tonumber(ARGV[8])
-- Attempts that are in the store are known for as long as a read may take.
if tonumber(ARGV[6]) ~= meta[ROUND] or real < began or real - began > READ then
  return { 'late' }
end

-- prune drops the counts of other rounds, and those that are over, which are
-- read again if anybody asks for them.
local function prune(c)
  local kept = {}
  for i = 1, #c, SIZE do
    if c[i + OF_ROUND] == meta[ROUND] and c[i + TO] + 3600 * SECOND > now then
      for j = i, i + SIZE - 1 do
        kept[#kept + 1] = c[j]
      end
    end
  end
  return kept
end

local names, fresh, new = {}, {}, 0
for p = 9, #ARGV, 6 do
  names[#names + 1] = ARGV[p]
end
fetch(names)
for n, name in ipairs(names) do
  local p = 9 + 6 * (n - 1)
  local from, to = tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2])
  if not find(name, from, to) then
    if not fields[name] then
      new = new + 1
    end
    if not fresh[name] then
      fields[name], fresh[name], changed[name] = prune(fields[name] or {}), {}, true
    end
    local c = fields[name]
    local i = #c + 1
    fresh[name][#fresh[name] + 1] = i
    c[i + FROM], c[i + TO], c[i + OF_ROUND] = from, to, meta[ROUND]
    for j = 0, 2 do
      c[i + S_AMOUNT + j] = min(tonumber(ARGV[p + 3 + j]), LARGEST)
    end
    c[i + H_AMOUNT], c[i + H_TOKENS] = 0, 0
  end
end
if new > 0 and call('HLEN', COUNTS) + new > windows then
  return { 'many' }
end

local function count(r)
  for _, name in ipairs(owners(r)) do
    for _, i in ipairs(fresh[name] or {}) do
      local c = fields[name]
      if c[i + FROM] <= r[AT] and r[AT] < c[i + TO] then
        local held = r[STATE] == 'h'
        add(c, i + (held and H_AMOUNT or S_AMOUNT), r[AMOUNT])
        add(c, i + (held and H_TOKENS or S_TOKENS), r[TOKENS])
        add(c, i + S_REQUESTS, r[REQUESTS])
      end
    end
  end
end

if next(fresh) then
  local all = call('HGETALL', ATTEMPTS)
  for i = 1, #all, 2 do
    local r = all[i] ~= '' and mp.unpack(all[i + 1])
    if r and r[STATE] ~= 'x' and (r[SHIPPED] == 0 or r[SHIPPED] > number) then
      count(r)
    end
  end
  store()
end
return { 'ok' }
