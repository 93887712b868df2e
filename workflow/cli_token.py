"""`plumb token`: keys for programs that use REST. The secret is shown once; only its hash is kept."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from workflow.cli_base import HERE, Chosen, Json, console, execute

Name = Annotated[str, typer.Argument(help="Name of the token; it stands beside everything that is saved with it.")]


def add_token(app: typer.Typer) -> None:
    """Adds the group of commands."""
    group = typer.Typer(help="Tokens for REST (/api/v1).", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(listed)
    group.command("revoke")(revoke)
    app.add_typer(group, name="token")


def create(
    name: Name,
    scopes: Annotated[str, typer.Option(help="Of read, comment, plan, approve; joined by ','.")] = "read",
    days: Annotated[int, typer.Option(help="Days until it expires.")] = 90,
    workspace: Chosen = None,
    as_json: Json = False,
) -> None:
    """Make a token and print its secret, which cannot be shown again."""
    root = workspace or HERE

    def work() -> dict[str, Any]:
        from app.saved import database, remarks
        from workflow.paths import Workspace

        with database.writing(Workspace(root).require().saved_state) as con:
            token, secret = remarks.create_token(con, name, [s.strip() for s in scopes.split(",")], days)
        return {"name": token.name, "scopes": token.scopes, "expires_at": token.expires_at, "secret": secret}

    def show(answer: dict[str, Any]) -> None:
        typer.echo(answer["secret"])
        typer.echo(f"Keep it: it is not shown again. It expires at {answer['expires_at']} UTC.", err=True)

    execute(root, as_json, work, show)


def listed(workspace: Chosen = None, as_json: Json = False) -> None:
    """List every token ever made, without secrets."""
    root = workspace or HERE

    def work() -> dict[str, Any]:
        import dataclasses

        from app.saved import database, remarks
        from workflow.paths import Workspace

        with database.reading(Workspace(root).require().saved_state) as con:
            return {"tokens": [dataclasses.asdict(t) for t in remarks.tokens(con)]}

    def show(answer: dict[str, Any]) -> None:
        if not answer["tokens"]:
            typer.echo("No token has been made; make one with: plumb token create NAME")
            return
        table = Table("name", "scopes", "made (UTC)", "expires", "revoked", box=None, pad_edge=False)
        for t in answer["tokens"]:
            table.add_row(t["name"], ", ".join(t["scopes"]), t["created_at"], t["expires_at"] or "never",
                          t["revoked_at"] or "")  # fmt: skip
        console().print(table)

    execute(root, as_json, work, show)


def revoke(name: Name, workspace: Chosen = None, as_json: Json = False) -> None:
    """End a token at once."""
    root = workspace or HERE

    def work() -> dict[str, Any]:
        from app.saved import database, remarks
        from workflow.paths import Workspace

        with database.writing(Workspace(root).require().saved_state) as con:
            remarks.revoke_token(con, name)
        return {"revoked": name}

    execute(root, as_json, work, lambda answer: typer.echo(f"Token {answer['revoked']} is revoked."))
