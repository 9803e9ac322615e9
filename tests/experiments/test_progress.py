"""The lines of progress where there is no terminal."""

from types import SimpleNamespace

import pytest

from experiments.command_line import progress
from experiments.command_line.progress import Progress


@pytest.fixture
def shown(monkeypatch, capsys):
    """A function from what a training of two epochs of four steps reports to the lines that it shows."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress.sys, "stderr", SimpleNamespace(isatty=lambda: False))

    def lines(members):
        run = SimpleNamespace(config=SimpleNamespace(batch_size=8, epochs=2))
        part = SimpleNamespace(index=0, members=range(members))
        session = SimpleNamespace(run=run, parts=(part,), steps_per_epoch=4, batch_size=8)
        logger = Progress(session, part)
        logger.start(0, 8, [])
        for step in range(1, 9):
            if step % 4 == 0:
                terms = {"elbo": -100.0 + step, "rate": 1.0, "distortion": 99.0}
                logger.epoch([{"member": i, "validation": terms} for i in range(members)])
            logger.step(step)
        logger.end(8)
        logger.close()
        return capsys.readouterr().out.splitlines()

    return lines


@pytest.mark.parametrize("members", [1, 3])
def test_each_bound_is_shown_once(shown, members):
    lines = shown(members)
    assert len(lines) == 8
    for text in ("not yet validated", "elbo -96.00", "elbo -92.00"):
        assert sum(text in line for line in lines) == 1
    assert lines[0].startswith("compiled; first epoch")
    assert "elbo -96.00" in lines[3]
    assert lines[4].startswith("epoch 1.2/2  ")
    assert "examples/s" in lines[4]
