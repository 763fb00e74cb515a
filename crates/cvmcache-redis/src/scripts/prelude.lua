-- What all scripts of a shard share. KEYS[1] is `used` of the shard; all its other keys have the
-- same beginning, and so the same slot:
--
--   used, pinned      bytes of all its objects, and of those that are pinned
--   lru, vol          its objects, and the volatile ones: when they were used last; +inf while pinned
--   o:ID              f metadata, c cost, t type, n instances that pin it, s segments
--   d:ID:K            segment K of the data
--   u:TOKEN:K         segment K of an upload
--   alive             plugin instances: when their lease expires
--   held:INSTANCE     the objects that an instance has pinned
--   crumbs, crumbed   breadcrumbs by the digest of the repository's name, and when they were stored
--
-- The server runs one script at a time, so that each leaves objects, indexes, pins and counters consistent.
--
-- An attacker with write access to the server can put any value into any key. So what scripts return is bounded in
-- length, what is not a number counts as 0, and a key of another type has metadata that does not verify.

local used = KEYS[1]
local base = string.sub(used, 1, -5)
local pinned = base .. 'pinned'
local alive = base .. 'alive'

local MAX_METADATA = 65536
local MAX_ID = 64
local MAX_SEGMENTS = 1048576

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function index(type)
  return base .. (type == '2' and 'vol' or 'lru')
end

local function object(id)
  return base .. 'o:' .. id
end

local function segment(id, k)
  return base .. 'd:' .. id .. ':' .. k
end

local function add(key, by)
  by = tonumber(by) or 0
  if type(redis.pcall('INCRBY', key, by)) == 'table' then redis.call('SET', key, by) end
end

-- The metadata of an object; false if there is none, and '' if it cannot be valid.
local function metadata(id)
  local len = redis.pcall('HSTRLEN', object(id), 'f')
  if len == 0 then return false end
  if type(len) == 'table' or len > MAX_METADATA then return '' end
  return redis.call('HGET', object(id), 'f')
end

local function renew(instance, lease)
  redis.call('ZADD', alive, string.format('%.0f', now() + lease), instance)
end

-- Pins an object, which exists, for an instance. Idempotent.
local function pin(instance, id)
  if redis.call('SADD', base .. 'held:' .. instance, id) == 0 then return end
  local o = redis.call('HMGET', object(id), 'c', 't', 'n')
  local n = (tonumber(o[3]) or 0) + 1
  redis.call('HSET', object(id), 'n', n)
  if n ~= 1 then return end
  add(pinned, o[1])
  redis.call('ZADD', index(o[2]), '+inf', id)
end

-- The opposite. After the last pin, the object may be evicted, as one that was used at `score`.
local function unpin(id, score)
  local o = redis.pcall('HMGET', object(id), 'c', 't', 'n')
  if not o[1] then return end
  local n = (tonumber(o[3]) or 1) - 1
  redis.call('HSET', object(id), 'n', n)
  if n > 0 then return end
  add(pinned, -(tonumber(o[1]) or 0))
  redis.call('ZADD', index(o[2]), score, id)
end

local function release(instance, id, score)
  if redis.call('SREM', base .. 'held:' .. instance, id) == 1 then unpin(id, score) end
end

-- Removes an object with all its keys and entries. Returns its cost.
local function remove(id)
  local o = redis.pcall('HMGET', object(id), 'c', 's', 'n')
  local cost = tonumber(o[1]) or 0
  for k = 0, math.min(tonumber(o[2]) or 0, MAX_SEGMENTS) - 1 do
    redis.call('UNLINK', segment(id, k))
  end
  redis.call('UNLINK', object(id))
  redis.call('ZREM', base .. 'lru', id)
  redis.call('ZREM', base .. 'vol', id)
  add(used, -cost)
  if (tonumber(o[3]) or 0) > 0 then add(pinned, -cost) end
  -- An error of the counters does not outlive the last object.
  if redis.call('EXISTS', base .. 'lru', base .. 'vol') == 0 then
    redis.call('UNLINK', used, pinned)
  end
  return cost
end

-- Releases what instances with expired leases had pinned: up to `count` objects. True if there may be more
-- of them.
local function reap(count)
  local dead = redis.call('ZRANGEBYSCORE', alive, '-inf', string.format('%.0f', now()), 'LIMIT', 0, 1)[1]
  if not dead then return false end
  local held = redis.call('SPOP', base .. 'held:' .. dead, count)
  local score = string.format('%.0f', now() * 1000)
  for _, id in ipairs(held) do unpin(id, score) end
  if #held < count then redis.call('ZREM', alive, dead) end
  return true
end
