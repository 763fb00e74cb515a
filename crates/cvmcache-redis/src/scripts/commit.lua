-- Makes an object of an upload, and pins it. An object that exists already is kept.
-- ARGV: instance, lease, id, metadata, cost, type, segments, token, segments that were sent before; then
-- the other segments. Returns 1 if the object is new, 0 if it existed, -1 if segments that were sent have
-- expired, in which case nothing has changed; and the metadata of the object.
local instance, lease, id = ARGV[1], ARGV[2], ARGV[3]
local token, segments, sent = ARGV[8], tonumber(ARGV[7]), tonumber(ARGV[9])
local known = metadata(id)
local is_new = not known
if is_new then
  local function upload(k) return base .. 'u:' .. token .. ':' .. k end
  for k = 0, sent - 1 do
    if redis.call('EXISTS', upload(k)) == 0 then return { -1, '' } end
  end
  for k = 0, sent - 1 do
    redis.call('RENAME', upload(k), segment(id, k))
    redis.call('PERSIST', segment(id, k))
  end
  for k = sent, segments - 1 do redis.call('SET', segment(id, k), ARGV[10 + k - sent]) end
  known = ARGV[4]
  redis.call('HSET', object(id), 'f', known, 'c', ARGV[5], 't', ARGV[6], 'n', 0, 's', segments)
  add(used, ARGV[5])
end
if #known > 0 then
  renew(instance, lease)
  pin(instance, id)
end
return { is_new and 1 or 0, known }
