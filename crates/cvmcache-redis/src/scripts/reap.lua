-- Releases what instances with expired leases had pinned. Returns 1 if there may be more of it.
return reap(100) and 1 or 0
