"""Training the stock model first, for its weights; or giving that up, where it takes too much of the budget."""

from __future__ import annotations

from nas_yolo.budget import Spending
from nas_yolo.config import SearchConfig
from nas_yolo.costs import Costs
from nas_yolo.planning.actions import Action, Begin, Cancel, Note, Wait
from nas_yolo.planning.situation import Situation
from nas_yolo.planning.trainings import train, train_new
from nas_yolo.proposals import stock_design
from storage import Job, Trial
from storage.events import TrialAdded, TrialMoved

PARENT_SHARE = 0.1  # of a budget in time: a parent that takes more leaves too little for what it is to help
LIBRARY_PARENT_SHARE = 0.3  # where blocks imitate it: it is what they learn from, and the others begin where it ends
PREDICTED = 2.0  # times that, by its first batches: a neighbour on the same core doubles what these take
COPIES = 2  # tries to hand its training over


def train_parent(situation: Situation) -> Action | None:
    """Begin it, go on with it, or give it up; nothing else is trained before it is known where to begin."""
    config = situation.config
    if situation.running("copy"):
        return Wait()
    if copying := _hand_over(situation):
        return copying
    parent = coming_parent(situation.trials)
    if parent is None:
        if situation.free_slots > 0 and wants_parent(situation.trials, config):
            number = len(situation.trials)
            origin = f"parent:{config.space.baseline}"
            added = TrialAdded(number, stock_design(config), origin), TrialMoved(number, "ready")
            return train_new(situation, added)
        return None
    if reason := too_expensive(parent, situation.costs, situation.spending):
        rejected = TrialMoved(parent.number, "rejected", reason)
        if parent.state == "training":
            return Cancel(f"train {parent.number}", (rejected,))
        return Note((rejected,))
    if parent.state != "training" and situation.free_slots > 0:
        return train(situation, parent)
    return None


def wants_parent(trials: tuple[Trial, ...], config: SearchConfig) -> bool:
    """Whether the stock model is to be trained first, for its weights: asked for, worth it, and nothing begun."""
    return config.trains_parent and not any(trial.is_parent or trial.epochs or trial.weights for trial in trials)


def coming_parent(trials: tuple[Trial, ...]) -> Trial | None:
    """The parent, while there is still something to do with it: until then nothing else is trained."""
    return next((trial for trial in trials if trial.is_parent and trial.alive), None)


def is_given_up(trials: tuple[Trial, ...]) -> bool:
    """Whether there was a parent that gives no weights."""
    return any(trial.is_parent and trial.state in ("rejected", "failed") for trial in trials)


def parent_share(config: SearchConfig) -> float:
    """Of a budget in time that the parent may take."""
    return LIBRARY_PARENT_SHARE if config.weights == "library" else PARENT_SHARE


def too_expensive(parent: Trial, costs: Costs, spending: Spending) -> str:
    """Why the parent is not trained on; empty if it is.

    Its first batches tell of one that takes far too much, before it has; two epochs of others: the first has set-up.
    """
    share, most = spending.share(costs.of(parent), alone=True), parent_share(costs.config)
    if len(parent.epochs) >= 2 and share > most:
        takes = f"takes {share:.0%} of the budget"
    elif not parent.epochs and parent.predicted_epoch_s and share > PREDICTED * most:
        takes = f"would take about {share:.0%} of the budget, as its first batches predict"
    else:
        return ""
    enough = spending.enough(costs.of_another(parent), most)
    return f"to train it {takes}, over {most:.0%} (a budget of {enough} would do); all trainings begin from scratch"


def _hand_over(situation: Situation) -> Action | None:
    """Let the stock trial go on where the training of a parent ended that gives no weights: they are the same."""
    parent = next((trial for trial in situation.trials if trial.is_parent and is_given_up((trial,))), None)
    stock = next((t for t in situation.designs if t.preset == situation.config.space.baseline), None)
    if parent is None or stock is None or not stock.alive or stock.state == "training":
        return None
    key = f"copy {parent.number} {stock.number}"
    if len(stock.epochs) >= len(parent.epochs) or situation.state.attempts.get(key, 0) >= COPIES:
        return None
    return Begin(Job(key, "copy", "copy", situation.now_s, parent.number))
