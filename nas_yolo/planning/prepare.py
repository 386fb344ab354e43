"""What comes before anything else: scanning the images once, timing the reference on every target."""

from __future__ import annotations

from itertools import product

from nas_yolo.planning.actions import Action, Begin, Note, Wait
from nas_yolo.planning.situation import Situation
from storage import Job
from storage.events import PhaseEntered


def images_and_targets(situation: Situation) -> Action | None:
    """All of it at once; then exploring begins."""
    if situation.state.phase != "preparing":
        return None
    context, state = situation.context, situation.state
    jobs = []
    if not state.prepared:
        threads = float(context.threads)
        jobs.append(Job("prepare", "prepare", "train", situation.now_s, gpus=context.gpus, cpus=threads))
    for (target, fingerprint), imgsz in product(context.devices, situation.config.image_sizes):
        if (fingerprint, imgsz) not in state.calibrations:
            key = f"calibrate {target.name} at {imgsz} px"
            jobs.append(Job(key, "calibrate", "measure", situation.now_s, target=target.name, cpus=1.0))
    for job in jobs:
        if job.key not in state.jobs:
            return Begin(job)
    return Wait() if jobs else Note((PhaseEntered("exploring"),))
