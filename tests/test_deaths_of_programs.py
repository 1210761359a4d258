"""Server and worker die before each change that they make; whatever it is, nothing is lost, doubled or left."""

from pathlib import Path

import pytest
from chaos.deaths import SERVER, WORKER, die_everywhere


@pytest.mark.parametrize(
    ("who", "every"),
    [(SERVER, 12), (WORKER, 24), *(pytest.param(who, 1, marks=pytest.mark.long) for who in (SERVER, WORKER))],
)
async def test_whatever_one_dies_before_the_job_is_done_once(tmp_path: Path, who: str, every: int) -> None:
    alive, *deaths = await die_everywhere(tmp_path, who, every, at_once=4)
    assert [str(death) for death in (alive, *deaths) if death.wrong] == []
    assert not alive.has_died
    assert 2 * len([death for death in deaths if death.has_died]) > len(deaths), "it comes to most of them each time"
