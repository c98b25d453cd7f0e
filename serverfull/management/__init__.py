"""The control plane: one module for each resource of the API. Knows neither aiohttp nor the data plane."""
