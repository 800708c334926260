-- The registry of gateways, the only key that is not a company's. It knows who
-- lives, and numbers the runs of servers: a run ends when its data may be lost.
-- ARGV: what to do; the gateway; for how long a sign of life is good, in
-- milliseconds; the registry's name and the number of the last run for which the
-- gateway has said in every company what it has; a name for a new registry;
-- servers, the first of which it is about, its own if there is none; a run (name
-- and number) of that one that has lost data, "" for none; a company; the
-- processes that the gateway knows to be over.
--
-- "beat" is a sign of life, "leave" the end of it. "claim" asks whether the
-- company may be opened in the current run of the server, "open" says that it was,
-- "forget" that it is no more.
--
-- Answers a verdict, the registry's name, how many runs there were, all that live,
-- the number of the current run of the server, and what each that lives knows to be
-- over. The verdict is "wait" until
-- every gateway that lives has said what it has in the runs of all these servers,
-- then "go", or "open" to a claim where somebody has opened the company in this
-- run already.
local key, what, gateway, patience = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local lost, company = ARGV[8], 'c' .. ARGV[9]
local call, mp = redis.call, cmsgpack
local t = call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local own = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')

local got = call('HMGET', key, 'runs', 'gateways')
local registry = got[1] and mp.unpack(got[1])
local gateways = got[2] and mp.unpack(got[2]) or {}
if not registry or not registry[3][own] then
  registry = { ARGV[6], 0, {} } -- it may have lost data itself, and give numbers twice
end
local name, count, runs = registry[1], registry[2], registry[3]

local function begin(s)
  count = count + 1
  runs[s] = { count, now }
end
local servers = {}
for s in string.gmatch(ARGV[7] .. ' ' .. own, '%x+') do
  servers[#servers + 1] = s
  if not runs[s] then
    begin(s)
  end
end
local server = servers[1]
if name .. '-' .. runs[server][1] == lost then
  begin(server)
end

if what == 'leave' then
  gateways[gateway] = nil
else
  gateways[gateway] = { now, patience, ARGV[4], tonumber(ARGV[5]), ARGV[10] }
end
local run, since = runs[server][1], runs[server][2]
local newest = run
if what ~= 'claim' then
  for _, s in ipairs(servers) do
    newest, since = math.max(newest, runs[s][1]), math.max(since, runs[s][2])
  end
end
local lives, over, complete = {}, {}, now - since >= patience
for id, g in pairs(gateways) do
  if now - g[1] < g[2] then
    lives[#lives + 1] = id
    over[#over + 1] = g[5] -- an older gateway has none
    complete = complete and g[3] == name and g[4] >= newest
  elseif now - g[1] > 60000 + g[2] then
    gateways[id] = nil
  end
end

local oldest, number = nil, 0
for s, r in pairs(runs) do
  number = number + 1
  if s ~= own and s ~= server and (not oldest or r[1] < runs[oldest][1]) then
    oldest = s
  end
end
if number > 200 then -- of servers that are gone
  runs[oldest] = nil
end
call('HSET', key, 'runs', mp.pack({ name, count, runs }), 'gateways', mp.pack(gateways))

local verdict, token = complete and 'go' or 'wait', name .. '-' .. run
if what == 'open' then
  call('HSET', key, company, token .. '!')
elseif what == 'forget' then
  call('HDEL', key, company)
elseif what == 'claim' and complete then
  if call('HGET', key, company) == token .. '!' then
    verdict = 'open'
  else
    call('HSET', key, company, token .. '?')
  end
end
return { verdict, name, count, lives, run, over }
