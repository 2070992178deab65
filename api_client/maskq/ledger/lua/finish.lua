-- End a job for its holder.
--   state: SUCCEEDED or FAILED; payload: the result's or the error's JSON
-- → 'done' | 'lost' (the token does not hold it any more: the holder removes what it wrote)
local id, token, state, payload = unpack(ARGV, 2)
local known = redis.call('HMGET', keys.record(id), 'status', 'token', 'model')
if known[2] ~= token then return 'lost' end
if known[1] == state then return 'done' end  -- sent twice
if known[1] ~= RUNNING then return 'lost' end
count_completion(known[3])
end_job(id, state, state == SUCCEEDED and 'result' or 'error', payload)
return 'done'
