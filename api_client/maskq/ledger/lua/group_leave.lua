-- Leave a group. Unconfirmed events stay with the reader's name, for another reader to take over.
local group, consumer = unpack(ARGV, 2)
local stream = keys.events()
if redis.call('EXISTS', stream) == 0 then return end
if #redis.pcall('XPENDING', stream, group, '-', '+', 1, consumer) == 0 then
  redis.pcall('XGROUP', 'DELCONSUMER', stream, group, consumer)
end
