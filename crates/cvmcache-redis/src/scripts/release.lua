-- Releases objects. ARGV: instance; then for each object id and when it was used last.
for i = 2, #ARGV, 2 do release(ARGV[1], ARGV[i], ARGV[i + 1]) end
return 0
