-- Ends the lease of an instance. ARGV: instance. Returns 1 if there is more to release.
if redis.call('ZSCORE', alive, ARGV[1]) then redis.call('ZADD', alive, 0, ARGV[1]) end
return reap(100) and 1 or 0
