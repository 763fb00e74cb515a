-- The least recently used objects: up to ARGV[1] volatile ones and as many others. Returns
-- for each whether it is volatile, its id, when it was used, and its cost.
reap(100)
local found = {}
for volatile = 1, 0, -1 do
  local index = base .. (volatile == 1 and 'vol' or 'lru')
  local oldest = redis.call('ZRANGEBYSCORE', index, '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
  for i = 1, #oldest, 2 do
    if #oldest[i] > MAX_ID then
      redis.call('ZREM', index, oldest[i])
    else
      local cost = redis.call('HGET', object(oldest[i]), 'c')
      table.insert(found, { volatile, oldest[i], oldest[i + 1], tonumber(cost or 0) or 0 })
    end
  end
end
return found
