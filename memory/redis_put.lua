-- Keeps a tail, and drops those whose time is over and what is more than there may be.
-- KEYS: tails, due. ARGV: conversation, tail, seconds, how many at most.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[3] * 1000000, ARGV[1])
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 500)
if #gone == 0 then
  local over = redis.call('ZCARD', KEYS[2]) - ARGV[4]
  if over > 0 then
    gone = redis.call('ZRANGE', KEYS[2], 0, math.min(over, 500) - 1)
  end
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZREM', KEYS[2], unpack(gone))
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 0
