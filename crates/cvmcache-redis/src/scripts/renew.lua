-- Renews the lease of an instance. ARGV: instance, lease. Returns how many objects it has pinned, or -1
-- if its lease has expired, and other instances have released what it had pinned.
reap(100)
if not redis.call('ZSCORE', alive, ARGV[1]) then return -1 end
renew(ARGV[1], ARGV[2])
return redis.call('SCARD', base .. 'held:' .. ARGV[1])
