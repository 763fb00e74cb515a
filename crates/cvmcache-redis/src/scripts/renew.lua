-- Prolongs the lease of an instance. ARGV: instance, lease. Returns how many objects it holds, or -1 if
-- its lease has ended, and others have let go of what it held.
reap(100)
if not redis.call('ZSCORE', alive, ARGV[1]) then return -1 end
prolong(ARGV[1], ARGV[2])
return redis.call('SCARD', base .. 'held:' .. ARGV[1])
