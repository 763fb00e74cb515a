-- The breadcrumb of a repository; '' if there is none, or it cannot be valid. ARGV: digest of the
-- repository's name, length of a breadcrumb.
local len = redis.pcall('HSTRLEN', base .. 'crumbs', ARGV[1])
if type(len) == 'table' or len == 0 then return '' end
if len ~= tonumber(ARGV[2]) then return 'x' end
return redis.call('HGET', base .. 'crumbs', ARGV[1])
