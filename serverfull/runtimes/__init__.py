"""Ways to run a function: each makes environments that turn an event into a result."""
