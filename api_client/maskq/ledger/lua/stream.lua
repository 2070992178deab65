-- Which events are kept. ARGV: prefix → {last id ever written, id just before the first one kept}
return stream_ends()
