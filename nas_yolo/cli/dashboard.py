"""`dashboard`."""

from __future__ import annotations

import click

from nas_yolo.cli.options import console, open_repository, storage_option


@click.command("dashboard")
@click.argument("name", required=False)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@storage_option
def dashboard_command(name: str | None, port: int, url: str | None) -> None:
    """Serve optuna-dashboard on this machine (loopback only) with one search, or all. It follows a running search.

    \b
    Example:
      nas-yolo dashboard my --port 9000
    """
    from nas_yolo.integrations.optuna_dashboard import serve
    from search_spaces import UserError

    repository = open_repository(url)
    searches = [repository.search(name)] if name else repository.searches()
    if not searches:
        raise UserError(f"no searches in {repository.shown_url}; start with nas-yolo demo")
    console().print(f"Dashboard on http://127.0.0.1:{port}/dashboard/ (Ctrl-C ends it)", soft_wrap=True)
    try:
        serve(repository, searches, port)
    except OSError as error:
        raise UserError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
