"""The data plane: resolve a function, admit the call, run it, log it. Knows neither HTTP nor how functions are made."""
