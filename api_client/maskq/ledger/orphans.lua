-- An attempt could not remove what it wrote, or cannot know whether a manifest names it: somebody looks
-- later. ARGV: prefix, id, output_prefix or '' (for a job that was deleted meanwhile)
if redis.call('EXISTS', record_key(ARGV[2])) == 1 then
  leave_orphans(ARGV[2])
else
  look_for_orphans(ARGV[2] .. (ARGV[3] ~= '' and ' ' .. ARGV[3] or ''))
end
return 'noted'
