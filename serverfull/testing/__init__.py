"""What users test with, and so do we: real hosts, and the suites that every fetcher, runtime and code store passes."""
