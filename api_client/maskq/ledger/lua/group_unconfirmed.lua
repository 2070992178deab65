-- Count the events that a reader of a group got and did not confirm.
--   most: count no further
local group, consumer, most = unpack(ARGV, 2)
return #redis.call('XPENDING', keys.events(), group, '-', '+', most, consumer)
