-- A ticket more. ARGV: prefix, model
send_ticket(ARGV[2])
return 'sent'
