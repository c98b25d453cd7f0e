"""``serverfull build``: artifacts that run one function on AWS Lambda.

`inspection` loads the function in a process of its own and says what it needs, `staging` puts all of that into one
folder, and `recipes` makes the artifact of the folder.
"""
