-- Some of the objects that an instance has pinned. ARGV: instance, cursor. Returns the next cursor, and ids.
local page = redis.call('SSCAN', base .. 'held:' .. ARGV[1], ARGV[2], 'COUNT', 100)
local ids = {}
for _, id in ipairs(page[2]) do
  if #id <= MAX_ID then table.insert(ids, id) end
end
return { page[1], ids }
