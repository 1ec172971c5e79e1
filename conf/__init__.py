"""The options of the commands as YAML, and the code that reads and checks them."""
