"""``serverfull lambda`` and ``serverfull build``: the same functions as native AWS Lambdas."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from serverfull.cli.options import config_option, loaded, setting_option


@contextmanager
def _usage() -> Iterator[None]:
    """Tell a function that TARGET does not have as wrong usage."""
    from serverfull.errors import NotFoundError

    try:
        yield
    except NotFoundError as missing:
        raise click.UsageError(str(missing)) from None


@click.command("lambda")
@click.argument("target", metavar="TARGET")
@setting_option("lambda_mode.function", text="The function to run; not needed where TARGET has only one.")
@setting_option("mock.enabled", is_flag=True, text="Answer from the function's types; its handler never runs.")
@setting_option("mock.answers", text="What is answered: zero, random, or a JSON file or folder.")
@setting_option("mock.seed", int, text="Makes random answers repeatable.")
@config_option
def run_lambda(target: str, mock__enabled: bool, **flags: Any) -> None:
    """Run one function as a native AWS Lambda.

    There is no HTTP server: AWS's runtime client (the extra "lambda") gets the invocations from AWS_LAMBDA_RUNTIME_API,
    which AWS Lambda sets. TARGET is what "serverfull serve" takes.

    \b
    serverfull lambda app.py --function hello
    """
    settings = loaded({**flags, "mock__enabled": mock__enabled or None}).settings
    from serverfull.lambda_mode.starting import start_target

    with _usage():
        start_target(target, settings)


@click.command()
@click.argument("target", metavar="TARGET")
@setting_option("lambda_mode.function", text="The function to run; not needed where TARGET has only one.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["zip", "pyz", "bootstrap"]),
    required=True,
    help="zip: for Lambda's Python runtimes. pyz: one file for any Python. bootstrap: one executable for provided.*.",
)
@click.option(
    "--output",
    help="File to write, or the folder to write it into: one that is there, or a name that ends in a slash. "
    "[default: FUNCTION.zip, .pyz, bootstrap]",
)
@click.option(
    "--requirements",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Requirements file of what the function needs; may be repeated.",
)
@click.option(
    "--python-platform",
    "platforms",
    multiple=True,
    metavar="TAG",
    help="Platform of the wheels, such as manylinux2014_x86_64; may be repeated. [default: this machine's]",
)
@click.option(
    "--python-version", metavar="X.Y", help="Version of the wheels and of Lambda's runtime. [default: this one]"
)
@click.option(
    "--include",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="A further file or folder to put inside; may be repeated.",
)
@click.option("--mock", is_flag=True, help="Answer from the function's types; its handler never runs.")
@config_option
def build(
    target: str,
    kind: str,
    output: str | None,
    requirements: tuple[Path, ...],
    platforms: tuple[str, ...],
    python_version: str | None,
    include: tuple[Path, ...],
    mock: bool,
    **flags: Any,
) -> None:
    """Build what runs one function on AWS Lambda.

    TARGET is what "serverfull serve" takes. Its module goes in with the modules of its own folder that it imports, and
    with what pip installs from the requirements.

    \b
    serverfull build app.py --function hello --format zip --python-version 3.13
    """
    settings = loaded(flags).settings.lambda_mode
    from serverfull.building.plan import Plan
    from serverfull.building.recipes import build_artifact

    plan = Plan(
        target=target,
        function=settings.function,
        mock=mock,
        requirements=requirements,
        platforms=platforms,
        python_version=python_version,
        include=include,
    )
    with _usage():
        built = build_artifact(plan, kind, output)
    for note in built.notes:
        sys.stderr.write(f"{note}\n")
    click.echo(str(built.path))
