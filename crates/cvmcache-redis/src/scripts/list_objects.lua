-- Some of the objects of a type. ARGV: type, cursor. Returns the next cursor, and for each object its
-- id, its metadata, and whether it is pinned.
local page = redis.call('ZSCAN', index(ARGV[1]), ARGV[2], 'COUNT', 100)
local found = {}
for i = 1, #page[2], 2 do
  local id = page[2][i]
  if #id <= MAX_ID and redis.call('HGET', object(id), 't') == ARGV[1] then
    local known = metadata(id)
    if known and #known > 0 then
      table.insert(found, { id, known, page[2][i + 1] == 'inf' and 1 or 0 })
    end
  end
end
return { page[1], found }
