-- The facts of an object. ARGV: id.
return facts(ARGV[1])
