-- Return which events are kept.
-- → {id of the last one ever written, id just before the first one kept}
return stream_ends()
