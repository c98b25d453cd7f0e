"""What a function takes, gives back and raises, read from its annotations and its declared errors."""
