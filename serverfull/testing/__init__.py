"""What users test with, and so do we: real hosts in processes of their own, and the suite that every fetcher passes."""
