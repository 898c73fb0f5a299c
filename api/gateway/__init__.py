"""The gateway: authenticates, validates, limits, queues, answers, streams.

It holds nothing that a crash would lose.  See `api/README.md` for the way of a
request through these modules.
"""
