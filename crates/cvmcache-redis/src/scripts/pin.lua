-- Holds an object, if it is there, and returns its facts. ARGV: instance, lease, id.
local known = facts(ARGV[3])
if known and #known > 0 then
  prolong(ARGV[1], ARGV[2])
  hold(ARGV[1], ARGV[3])
end
return known
