"""Messages to other tools: payloads, signatures, transports, retries."""
