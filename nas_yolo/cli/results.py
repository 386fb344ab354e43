"""`list`, `status`, `front` and `export`."""

from __future__ import annotations

from pathlib import Path

import click

from nas_yolo.cli.options import chosen_trial, console, json_option, open_repository, print_json, storage_option


@click.command("list")
@storage_option
@json_option
def list_command(url: str | None, as_json: bool) -> None:
    """List all searches of the database."""
    from rich.table import Table

    from nas_yolo.config import SearchConfig
    from nas_yolo.results import budget_document, complete, designs

    repository = open_repository(url)
    rows = []
    for search in repository.searches():
        config = SearchConfig.from_document(search.config)
        trials = designs(repository.trials(search))
        state = search.state
        if state == "running" and not repository.is_claimed(search):
            state = "stopped"  # killed
        rows.append(
            {
                "name": search.name,
                "state": state,
                "created_at": search.created_at.isoformat(timespec="seconds") + "Z",
                "budget": budget_document(config, repository.spent(search), len(trials)),
                "trials": len(trials),
                "complete": len(complete(trials, config.targets[0][0].name)),
            }
        )
    if as_json:
        return print_json(rows)
    if not rows:
        console().print(f"No searches in {repository.shown_url}. Start with: nas-yolo demo", soft_wrap=True)
        return None
    table = Table("name", "state", "created (UTC)", "budget", "trials", "complete")
    for row in rows:
        budget = row["budget"]
        assert isinstance(budget, dict)
        used = f"{budget['spent']:g} of {budget['limit']:g} {budget['unit']}"
        created = str(row["created_at"]).replace("T", " ").rstrip("Z")
        table.add_row(str(row["name"]), str(row["state"]), created, used, str(row["trials"]), str(row["complete"]))
    console().print(table)
    return None


@click.command("status")
@click.argument("name")
@storage_option
@json_option
def status_command(name: str, url: str | None, as_json: bool) -> None:
    """Show how a search stands: what is spent, and every trial."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from nas_yolo.config import SearchConfig
    from nas_yolo.report.tables import accuracy_text, batch_text, inherited_text, latency_text, origin_text
    from nas_yolo.results import (
        budget_document,
        designs,
        inherits,
        opponents_document,
        trial_document,
        trust_document,
        trust_text,
        weights_text,
    )

    repository = open_repository(url)
    search = repository.search(name)
    config = SearchConfig.from_document(search.config)
    trials, spent = repository.trials(search), repository.spent(search)
    budget = budget_document(config, spent, len(designs(trials)))
    worked_on = repository.is_claimed(search)
    if as_json:
        documents = [
            trial_document(trial)
            | {
                "state": trial.state,
                "reason": trial.reason,
                "history": [{"epoch": e.epoch, "map50_95": e.map50_95, "map50": e.map50} for e in trial.epochs],
                "failures": [{"cause": f.cause, "message": f.message} for f in trial.failures],
            }
            for trial in trials
        ]
        return print_json(
            {
                "name": search.name,
                "state": search.state,
                "worked_on": worked_on,
                "weights": weights_text(trials, config),
                "budget": budget,
                "spent": {
                    "wall_seconds": spent.wall_seconds,
                    "gpu_seconds": spent.gpu_seconds,
                    "cpu_seconds": spent.cpu_seconds,
                },
                "trials": documents,
                "opponents": opponents_document(trials, config),
                "trust": trust_document(trials, config),
            }
        )
    screen = console()
    state = "being worked on" if worked_on else "stopped" if search.state == "running" else search.state
    screen.print(
        f"[bold]{name}[/bold]: {state}; spent {budget['spent']:g} of {budget['limit']:g} {budget['unit']}",
        soft_wrap=True,
    )
    names = [target.name for target, _ in config.targets]
    times = [f"ms on {name}" for name in names]
    table = Table("trial", "state", "epochs", "mAP50-95", *times, "params M", "from", box=SIMPLE_HEAD)
    for trial in trials:
        inherited = f"{inherited_text(trial)} inherited" if inherits(trial) else ""
        table.add_row(
            str(trial.number),
            trial.state,
            f"{len(trial.epochs)}/{config.epochs}",
            accuracy_text(trial),
            *(latency_text(trial.latencies[name]) if name in trial.latencies else "-" for name in names),
            f"{trial.complexity.params / 1e6:.2f}" if trial.complexity else "-",
            "\n".join(filter(None, [origin_text(trial), inherited, batch_text(trial), trial.reason])),
        )
    screen.print(table)
    screen.print(trust_text(trials, config), soft_wrap=True)
    if not worked_on and search.state != "done":
        screen.print(f"Go on with: nas-yolo resume {name}", soft_wrap=True)
    return None


@click.command("front")
@click.argument("name")
@storage_option
@json_option
def front_command(name: str, url: str | None, as_json: bool) -> None:
    """Show the Pareto front of a search, and the stock model beside it, also in other widths and depths."""
    from nas_yolo.config import SearchConfig
    from nas_yolo.report.tables import front_table
    from nas_yolo.results import front_document, trust_text

    repository = open_repository(url)
    search = repository.search(name)
    config = SearchConfig.from_document(search.config)
    trials = repository.trials(search)
    if as_json:
        return print_json(front_document(search, config, trials, repository.spent(search)))
    screen = console()
    for target, _ in config.targets:
        screen.print(front_table(trials, config, target.name))
    screen.print(trust_text(trials, config), soft_wrap=True)
    return None


@click.command("export")
@click.argument("name")
@click.option(
    "--trial", "number", type=int, help="Which trial. Default: the most accurate that is as fast as the stock model."
)
@click.option("--max-latency", type=float, metavar="MS", help="Instead: the most accurate within so many milliseconds.")
@click.option("--target", metavar="NAME", help="On which device, of a search with several. Default: its first.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A model YAML to write, or a folder for YAML, weights, ONNX and how to load them.",
)
@storage_option
@json_option
def export_command(
    name: str,
    number: int | None,
    max_latency: float | None,
    target: str | None,
    output: Path,
    url: str | None,
    as_json: bool,
) -> None:
    """Write a trial: a model YAML with explicit channels, ready to train, or a folder that runs as it is.

    The YAML is `stock` where Ultralytics' own rows can express the design, and then loads without nas-yolo. One that
    needs nas-yolo gets the folder too if the trial was trained, beside it: best/ for best.yaml.

    \b
    Examples:
      nas-yolo export my -o best.yaml
      nas-yolo export my --max-latency 8 -o fast.yaml
      nas-yolo export my --trial 7 -o trial-7
      nas-yolo yolo train model=best.yaml data=my.yaml epochs=300
    """
    from evaluators.accuracy.checkpoints import trained_weights
    from nas_yolo.config import SearchConfig
    from nas_yolo.design_files import check_folder, design_of, write_folder, write_yaml
    from search_spaces import UserError
    from search_spaces.names import unknown

    repository = open_repository(url)
    search = repository.search(name)
    config = SearchConfig.from_document(search.config)
    names = [one.name for one, _ in config.targets]
    if target is not None and target not in names:
        raise UserError(unknown("target of this search", target, names))
    trial = chosen_trial(search, repository.trials(search), config, number, max_latency, target or "")
    if not output.absolute().parent.is_dir():
        raise UserError(f"folder {output.absolute().parent} does not exist; create it or write elsewhere")
    design = design_of(name, config, trial)
    as_yaml = output.suffix in (".yaml", ".yml")
    folder = None
    if design.needs or not as_yaml:
        folder = output.with_suffix("") if as_yaml else output
        check_folder(folder)
    weights = trained_weights(repository.checkpoint(search, trial.number)) if folder else None
    if weights is None and not as_yaml:
        raise UserError(f"trial {trial.number} has no trained weights; export its YAML: -o {output.name}.yaml")
    paths = []
    try:
        if as_yaml:
            write_yaml(design, output)
            paths.append(output)
        if folder and weights is not None:
            paths += write_folder(design, weights, folder)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from error
    kind = "needs nas-yolo" if design.needs else "stock"
    if as_json:
        return print_json(
            {
                "trial": trial.number,
                "path": str(output.absolute()),
                "files": [str(path.absolute()) for path in paths],
                "kind": kind,
                "params": trial.complexity.params if trial.complexity else None,
                "needs_nas_yolo": list(design.needs),
            }
        )
    screen = console()
    why = f"needs nas-yolo, for {', '.join(design.needs)}" if design.needs else "stock, Ultralytics alone loads it"
    screen.print(f"Trial {trial.number} of {name}, {why}:", soft_wrap=True)
    for path in paths:
        screen.print(f"  {path}", soft_wrap=True)
    if folder and weights is None:
        screen.print("No folder beside it: the trial has no trained weights yet.")
    model = output if as_yaml else paths[0]
    command = ("nas-yolo yolo" if design.needs else "yolo") + f" train model={model} data=..."
    if not design.imgsz.is_square:  # Ultralytics would train it on squares
        command = f"nas-yolo train {name} --trial {trial.number}"
    screen.print(f"Train it with: {command}", soft_wrap=True)
    return None
