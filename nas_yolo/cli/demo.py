"""`demo`."""

from __future__ import annotations

from pathlib import Path

import click

from nas_yolo.cli.options import console, json_option, open_repository, storage_option
from nas_yolo.cli.search import run_and_show

# Small enough for a slow machine: the stock model is to be trained within a quarter of the budget. Learns the digits in
# few epochs: large enough steps, no mosaic (digits are small already).
IMAGES, IMAGE_SIZE, EPOCHS = 256, 64, 6
TRAINING = ("batch=8", "nbs=8", "optimizer=AdamW", "lr0=0.003", "mosaic=0")


@click.command("demo")
@click.option("--budget", default="285s", show_default=True, help="As for `search`.")
@storage_option
@json_option
def demo_command(budget: str, url: str | None, as_json: bool) -> None:
    """Run a real search on an embedded data set: handwritten digits on textured backgrounds. Nothing is downloaded."""
    import platformdirs

    from nas_yolo.application import create_search, free_name, make_config
    from nas_yolo.digits import write_digits

    data = write_digits(Path(platformdirs.user_cache_dir("nas-yolo")) / "data", IMAGES)
    options = f"--target cpu --budget {budget} --imgsz {IMAGE_SIZE} --epochs {EPOCHS} " + " ".join(
        f"--train {item}" for item in TRAINING
    )
    console(as_json).print(f"The same as: nas-yolo search --data {data} {options}", soft_wrap=True)
    repository = open_repository(url)
    config = make_config(
        data=str(data), targets=("cpu",), budgets=(budget,), imgsz=IMAGE_SIZE, epochs=EPOCHS, training=TRAINING
    )
    search = create_search(repository, free_name(repository, Path("demo.yaml")), config)
    run_and_show(repository, search, as_json, checked=True)
