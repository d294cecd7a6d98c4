"""The SQLite file that holds the log, the consumers and the messages."""
