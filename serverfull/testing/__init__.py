"""What users test with, and so do we: real hosts in processes of their own, and the suites that fetchers, code stores and
runtimes pass."""
