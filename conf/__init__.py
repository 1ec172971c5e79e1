"""The YAML that says what to run, and what the entry points share in reading it."""
