-- List the live workers of every model.
-- → {now, {{worker (JSON), …}, {owner, 'when heartbeat', …}, {owners whose store is away}} of each model}
local answer = {integer(now)}
for _, model in ipairs(known_models()) do
  local workers = live_workers(model)
  if #workers > 0 then
    answer[#answer + 1] = {workers, redis.call('HGETALL', keys.heartbeats(model)),
      redis.call('ZRANGEBYSCORE', keys.store_away(model), '(' .. integer(now), '+inf')}
  end
end
return answer
