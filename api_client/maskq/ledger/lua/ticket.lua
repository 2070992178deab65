-- Send one more ticket.
local model = unpack(ARGV, 2)
send_ticket(model)
return 'sent'
