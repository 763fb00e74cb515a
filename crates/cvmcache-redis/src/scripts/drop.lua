-- Removes an object that does not verify, even if it is pinned. ARGV: id, and its metadata as it was
-- read, so that an object that has taken its place since is kept.
local id, seen = ARGV[1], ARGV[2]
local known = metadata(id)
if known and known ~= seen then return 0 end
for _, instance in ipairs(redis.call('ZRANGE', alive, 0, -1)) do
  redis.call('SREM', base .. 'held:' .. instance, id)
end
remove(id)
return 1
