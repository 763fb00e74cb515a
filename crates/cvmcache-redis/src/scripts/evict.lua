-- Evicts objects, except those that were used since they were chosen. ARGV: for each whether it is volatile,
-- its id, and when it was used. Returns how many were evicted, and the sum of their costs.
local gone, freed = 0, 0
for i = 1, #ARGV, 3 do
  local index = base .. (ARGV[i] == '1' and 'vol' or 'lru')
  if redis.call('ZSCORE', index, ARGV[i + 1]) == ARGV[i + 2] then
    gone, freed = gone + 1, freed + remove(ARGV[i + 1])
  end
end
return {gone, freed}
