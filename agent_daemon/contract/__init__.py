"""What both ends must agree on exactly. Standard library and pydantic only."""
