"""PostgreSQL: the rows that follow the log, and the queue for when the engine is away. See README.md."""
