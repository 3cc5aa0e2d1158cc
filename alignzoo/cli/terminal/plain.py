"""How typer shows help and errors."""

# Rich help would triple the time that `--help` takes.
PLAIN = {
    "rich_markup_mode": None,
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
}
