-- Every model that is known, and where a request goes that names none.
-- ARGV: prefix, who else chooses (JSON, see default_model)
-- → {default or '', who chose it, {name, about (JSON), queued, worker (JSON), …}, …}
local default, choice = default_model(ARGV[2])
local answer = {default or '', choice}
for _, model in ipairs(known_models()) do
  local one = {model, redis.call('HGET', key('models'), model),
    redis.call('HGET', key('queue', model), 'queued') or '0'}
  for _, worker in ipairs(live_workers(model)) do one[#one + 1] = worker end
  answer[#answer + 1] = one
end
return answer
