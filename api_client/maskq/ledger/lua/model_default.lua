-- Store the deployment's default model, or drop it.
-- ARGV: prefix, model or '' (none) → {'done'} | {'unknown', names…}
local model = ARGV[2]
if model == '' then
  redis.call('DEL', key('default-model'))
  return {'done'}
end
if redis.call('HEXISTS', key('models'), model) == 0 then return {'unknown', unpack(known_models())} end
redis.call('SET', key('default-model'), model)
return {'done'}
