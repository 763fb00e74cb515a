-- The metadata of an object. ARGV: id.
return metadata(ARGV[1])
