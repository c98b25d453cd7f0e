"""What the code of deployed functions needs from package indexes: installed at deployment, beside the code.

Nothing here is imported before the first function is deployed; each module is imported by its own name.
"""
