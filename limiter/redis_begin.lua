-- Begins a read of the Book. Answers "read", the epoch, the number of the read,
-- its round, when it began, the moment before which the store is asked, and the
-- ids of the attempts that it is not asked for: all that are not known to be in
-- it.
local closed = enter()
if closed then
  return closed
end
meta[READS] = meta[READS] + 1
meta[MARK] = max(now, meta[NEWEST] + 1)
meta[UNTIL] = real + READ
meta[NEWEST] = meta[MARK]
store()
local answer = { 'read', meta[EPOCH], meta[READS], meta[ROUND], real, meta[MARK] }
local all = call('HGETALL', ATTEMPTS)
for i = 1, #all, 2 do
  if all[i] ~= '' then
    local r = mp.unpack(all[i + 1])
    if r[ENTRY] == 1 and r[SHIPPED] == 0 and r[STATE] ~= 'x' then
      answer[#answer + 1] = all[i]
    end
  end
end
return answer
