"""Requests to a gateway: what they are, how they are sent, and which error an answer means.

This room knows HTTP and the API's errors. `maskq.client.http` knows which operation is which request.
"""
