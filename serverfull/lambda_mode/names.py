"""The names that artifacts and whoever builds them agree on."""

ARTIFACT_MODULE = "serverfull_artifact"
"""The module that ``serverfull build`` writes into an artifact, to say what it runs."""

HANDLER = "serverfull.lambda_mode.handler.handler"
"""What a Lambda-managed Python runtime is told as its Handler."""
