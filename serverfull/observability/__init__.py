"""What the host and its functions did: figures, records, and where they go."""
