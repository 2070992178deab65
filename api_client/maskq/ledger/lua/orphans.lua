-- An attempt could not remove what it wrote, or cannot know whether a manifest names it: somebody looks
-- later. ARGV: prefix, id, whose objects they are (see storage_member) if the job was deleted meanwhile
if redis.call('EXISTS', record_key(ARGV[2])) == 1 then
  leave_orphans(ARGV[2])
else
  look_for_orphans(ARGV[3])
end
return 'noted'
