"""``serverfull completion``: the script that makes a shell complete commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: eval "$(serverfull completion bash)"       in ~/.bashrc
    zsh:  eval "$(serverfull completion zsh)"        in ~/.zshrc
    fish: serverfull completion fish | source        in ~/.config/fish/config.fish
    """
    from serverfull.cli.application import application

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(application, {}, "serverfull", "_SERVERFULL_COMPLETE").source())
