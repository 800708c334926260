-- Says where budgets stand. ARGV from 5: of each its owner's field, and the
-- beginnings of a period, the next and the one after. Answers "stand", the
-- moment, the epoch and of each budget its period and count; "count" or "clock"
-- as the script that takes an attempt.
local closed = enter()
if closed then
  return closed
end
sweep(due)
if next(changed) then
  store()
end
local at = moment()
local names, budgets, uncounted = {}, {}, { 'count', meta[EPOCH] }
for p = 5, #ARGV, 4 do
  names[#names + 1] = ARGV[p]
end
fetch(names)
local answer = { 'stand', at, meta[EPOCH] }
for n, name in ipairs(names) do
  local p = 5 + 4 * (n - 1)
  local from, to = tonumber(ARGV[p + 1]), tonumber(ARGV[p + 2])
  if at >= to then
    from, to = to, tonumber(ARGV[p + 3])
  end
  if at < from or at >= to then
    return { 'clock', at }
  end
  local i = find(name, from, to)
  if not i then
    uncounted[#uncounted + 1] = n
    uncounted[#uncounted + 1] = from
    uncounted[#uncounted + 1] = to
  else
    answer[#answer + 1] = from
    answer[#answer + 1] = to
    for place = S_AMOUNT, H_TOKENS do
      answer[#answer + 1] = fields[name][i + place]
    end
  end
end
if #uncounted > 2 then
  return uncounted
end
return answer
