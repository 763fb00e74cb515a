-- Stores a breadcrumb. ARGV: digest of the repository's name, breadcrumb, how many a shard keeps. The least
-- recently stored ones go first. Idempotent.
local crumbs, stored = base .. 'crumbs', base .. 'crumbed'
redis.call('HSET', crumbs, ARGV[1], ARGV[2])
redis.call('ZADD', stored, string.format('%.0f', now()), ARGV[1])
local excess = redis.call('ZCARD', stored) - tonumber(ARGV[3])
if excess > 0 then
  for _, name in ipairs(redis.call('ZRANGE', stored, 0, math.min(excess, 100) - 1)) do
    redis.call('HDEL', crumbs, name)
    redis.call('ZREM', stored, name)
  end
end
return 0
