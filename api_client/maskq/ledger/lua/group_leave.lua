-- A reader goes. What it had and did not confirm stays with its name, for another one to take over.
-- ARGV: prefix, group, consumer
local stream, group, consumer = key('events'), ARGV[2], ARGV[3]
if redis.call('EXISTS', stream) == 0 then return end
if #redis.pcall('XPENDING', stream, group, '-', '+', 1, consumer) == 0 then
  redis.pcall('XGROUP', 'DELCONSUMER', stream, group, consumer)
end
