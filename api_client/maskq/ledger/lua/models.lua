-- List every known model, and the model of requests that name none.
--   choosers: JSON, see default_model
-- → {default or '', who chose it, {name, about (JSON), queued, worker (JSON), …}, …}
local choosers = unpack(ARGV, 2)
local default, choice = default_model(choosers)
local answer = {default or '', choice}
for _, model in ipairs(known_models()) do
  local one = {model, redis.call('HGET', keys.models(), model),
    queued_count(model)}
  for _, worker in ipairs(live_workers(model)) do one[#one + 1] = worker end
  answer[#answer + 1] = one
end
return answer
