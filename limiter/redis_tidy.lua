-- Drops what is the same as new: limits nobody used for two minutes, counts that
-- are over. ARGV from 5: where to go on, "0" at first; "hard" to drop counts of
-- users, too, of which nothing is held: they are read again if anybody asks.
-- Answers "tidy" and where to go on, "0" at the end.
local closed = enter()
if closed then
  return closed
end
local hard = ARGV[6] == 'hard'
local got = call('HSCAN', COUNTS, ARGV[5], 'COUNT', 200)
for i = 1, #got[2], 2 do
  local name, c = got[2][i], got[2][i + 1]
  local kind = string.sub(name, 1, 1)
  if kind == 'r' then
    local w = mp.unpack(c)
    if w[OPENED] == 0 and w[HELD] == 0 and now - w[WHEN] > 2 * MINUTE then
      call('HDEL', COUNTS, name)
    end
  elseif kind == 'j' then
    if real - mp.unpack(c)[4] > 86400 * SECOND then
      call('HDEL', COUNTS, name)
    end
  elseif kind == 'o' then
    local list, live = mp.unpack(c), false
    for n = 1, #list, SIZE do
      local needed = not hard or string.sub(name, 2, 2) ~= 'u' or list[n + H_AMOUNT] > 0 or list[n + H_TOKENS] > 0
      live = live or (needed and list[n + OF_ROUND] == meta[ROUND] and list[n + TO] + 3600 * SECOND > now)
    end
    if not live then
      call('HDEL', COUNTS, name)
    end
  end
end
if got[1] == '0' then
  for _, key in ipairs(KEYS) do
    call('PEXPIRE', key, IDLE)
  end
end
return { 'tidy', got[1] }
