-- Find an upload that no job has taken yet.
-- → milliseconds until its object is removed (negative: overdue), or '' if it is unknown
local member = unpack(ARGV, 2)
local due = redis.call('ZSCORE', keys.uploads(), member)
return due and integer(due - now) or ''
