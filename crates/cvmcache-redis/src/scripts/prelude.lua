-- What all scripts of a shard share. KEYS[1] is `used` of the shard; all its other keys have the
-- same beginning, and so the same slot:
--
--   used, pinned      bytes of all its objects, and of those that somebody holds
--   lru, vol          its objects, and the volatile ones: when they were used last; +inf while pinned
--   o:ID              f facts, c cost, t type, n holders, s segments
--   d:ID:K            segment K of the data
--   u:TOKEN:K         segment K of an upload under way
--   alive             plugin instances: when their lease ends
--   held:INSTANCE     the objects that an instance holds
--
-- Whoever can write to the server can put anything anywhere. So what scripts return is bounded in
-- length, numbers are taken for 0 if they are none, and an object of another kind has bad facts.

local used = KEYS[1]
local base = string.sub(used, 1, -5)
local pinned = base .. 'pinned'
local alive = base .. 'alive'

local MAX_FACTS = 65536
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

-- The facts of an object; false if there is none, and '' if they cannot be right.
local function facts(id)
  local len = redis.pcall('HSTRLEN', object(id), 'f')
  if len == 0 then return false end
  if type(len) == 'table' or len > MAX_FACTS then return '' end
  return redis.call('HGET', object(id), 'f')
end

local function prolong(instance, lease)
  redis.call('ZADD', alive, string.format('%.0f', now() + lease), instance)
end

-- Notes that an instance holds an object, which is there. Doing it again changes nothing.
local function hold(instance, id)
  if redis.call('SADD', base .. 'held:' .. instance, id) == 0 then return end
  local o = redis.call('HMGET', object(id), 'c', 't', 'n')
  local n = (tonumber(o[3]) or 0) + 1
  redis.call('HSET', object(id), 'n', n)
  if n ~= 1 then return end
  add(pinned, o[1])
  redis.call('ZADD', index(o[2]), '+inf', id)
end

-- The opposite. The last to let go leaves the object to eviction, as one that was used at `score`.
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

-- Removes an object with all that belongs to it. Returns its cost.
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
  -- Whatever has gone wrong with the accounts does not outlive the last object.
  if redis.call('EXISTS', base .. 'lru', base .. 'vol') == 0 then
    redis.call('UNLINK', used, pinned)
  end
  return cost
end

-- Lets go of what instances held whose lease has ended: up to `count` objects. True if there may be
-- more of them.
local function reap(count)
  local dead = redis.call('ZRANGEBYSCORE', alive, '-inf', string.format('%.0f', now()), 'LIMIT', 0, 1)[1]
  if not dead then return false end
  local held = redis.call('SPOP', base .. 'held:' .. dead, count)
  local score = string.format('%.0f', now() * 1000)
  for _, id in ipairs(held) do unpin(id, score) end
  if #held < count then redis.call('ZREM', alive, dead) end
  return true
end
