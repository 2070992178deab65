-- The holder ends its job. ARGV: prefix, id, token, 'succeeded' | 'failed', result or error JSON
-- → 'done' | 'lost' (somebody else's now, or ended otherwise: what was written must go)
local id, token, state, payload = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local known = redis.call('HMGET', record_key(id), 'status', 'token')
if known[2] ~= token then return 'lost' end
if known[1] == state then return 'done' end  -- sent twice
if known[1] ~= 'running' then return 'lost' end
end_job(id, state, state == 'succeeded' and 'result' or 'error', payload)
return 'done'
