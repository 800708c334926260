-- Finds attempts that were ended by their lease, the last thousand of a day, for
-- who asks whether the store has them. Answers "swept" and of each
-- its id and whose it was.
local closed = enter()
if closed then
  return closed
end
local answer = { 'swept' }
-- Among them are those that have ended and are not known to be in the store.
local ids = call('ZREVRANGEBYSCORE', DUE, real + LATE - SECOND, real + LATE - 86400 * SECOND, 'LIMIT', 0, 1000)
local packed = #ids > 0 and call('HMGET', ATTEMPTS, unpack(ids))
for i, id in ipairs(ids) do
  local r = packed[i] and mp.unpack(packed[i])
  if r and r[STATE] == 's' and r[ENTRY] == 1 then
    answer[#answer + 1] = id
    answer[#answer + 1] = r[OWNER]
  end
end
return answer
