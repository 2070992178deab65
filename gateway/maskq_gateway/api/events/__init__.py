"""/v1/events: the event stream of every caller, and the streams that the readers of a group share."""
