-- End a job for its holder.
--   state: SUCCEEDED or FAILED; payload: the result's or the error's JSON
-- → 'done' | 'lost' (the token does not hold it any more: the holder removes what it wrote)
local id, token, state, payload = unpack(ARGV, 2)
local known = redis.call('HMGET', keys.record(id), 'status', 'token', 'model')
if known[2] ~= token then return 'lost' end
if known[1] == state then return 'done' end  -- sent twice
if known[1] ~= RUNNING then return 'lost' end

-- Count the completion, with the time since the one before. Only while jobs wait does that time tell how fast
-- the workers are.
local function count_completion(model)
  local pace, minute = keys.pace(model), math.floor(now / 60000)
  local slot = 'minute:' .. minute % PACE_MINUTES
  local seen = redis.call('HMGET', pace, 'since_ms', slot)
  local is_backlog = redis.call('LLEN', keys.queue(model)) > 0
  local since = tonumber(seen[1])
  if not since then
    if is_backlog then redis.call('HSET', pace, 'since_ms', integer(now)) end
    return
  end
  local counted, jobs, ms = string.match(seen[2] or '', '^(%d+) (%d+) (%d+)$')
  if tonumber(counted) ~= minute then jobs, ms = 0, 0 end
  redis.call('HSET', pace, 'since_ms', is_backlog and integer(now) or '',
    slot, minute .. ' ' .. integer(jobs + 1) .. ' ' .. integer(ms + math.max(now - since, 0)))
end

count_completion(known[3])
end_job(id, state, state == SUCCEEDED and 'result' or 'error', payload)
return 'done'
