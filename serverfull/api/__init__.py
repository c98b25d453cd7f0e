"""The HTTP side: routes, AWS's protocol, gates and the hardened server. Above this room nobody writes HTTP by hand."""
