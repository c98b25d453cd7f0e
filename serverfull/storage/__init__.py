"""Where what was deployed is kept: records in a database, packages by their content."""
