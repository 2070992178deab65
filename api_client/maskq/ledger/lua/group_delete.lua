-- Delete a group of event readers. → 1 if it existed, else 0
local group = unpack(ARGV, 2)
local stream = keys.events()
if redis.call('EXISTS', stream) == 0 then return 0 end
return redis.call('XGROUP', 'DESTROY', stream, group)
