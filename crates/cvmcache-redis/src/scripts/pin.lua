-- Pins an object, if it exists, and returns its metadata. ARGV: instance, lease, id.
local known = metadata(ARGV[3])
if known and #known > 0 then
  renew(ARGV[1], ARGV[2])
  pin(ARGV[1], ARGV[3])
end
return known
