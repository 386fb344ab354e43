"""`python -m nas_yolo` is `nas-yolo`."""

from nas_yolo.cli import main

main(prog_name="nas-yolo")
