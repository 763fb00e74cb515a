-- Removes an object that is not what it should be, even if it is held. ARGV: id, and its facts as they
-- were seen, so that an object that has taken its place meanwhile is kept.
local id, seen = ARGV[1], ARGV[2]
local known = facts(id)
if known and known ~= seen then return 0 end
for _, instance in ipairs(redis.call('ZRANGE', alive, 0, -1)) do
  redis.call('SREM', base .. 'held:' .. instance, id)
end
remove(id)
return 1
