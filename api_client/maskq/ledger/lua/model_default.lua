-- Store the deployment's default model, or remove it if `model` is ''.
-- → {'done'} | {'unknown', names…}
local model = unpack(ARGV, 2)
if model == '' then
  redis.call('DEL', keys.default_model())
  return {'done'}
end
if redis.call('HEXISTS', keys.models(), model) == 0 then return {'unknown', unpack(known_models())} end
redis.call('SET', keys.default_model(), model)
return {'done'}
