from __future__ import annotations

import pytest
from eventful_vitdet.cli.slurm import first_node, slurm_variables, tasks_per_node

SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}


def test_a_task_of_srun():
    assert slurm_variables(SRUN) == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": str(20000 + 4713),
    }


def test_all_tasks_of_a_step_meet_at_one_place_and_other_steps_elsewhere():
    places = [
        (found["MASTER_ADDR"], found["MASTER_PORT"])
        for variables in ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, {}, {"SLURM_STEP_ID": "3"})
        for found in [slurm_variables({**SRUN, **variables})]
    ]
    assert places[0] == places[1] != places[2]


@pytest.mark.parametrize(
    "variables",
    [{"SLURM_STEP_NUM_TASKS": "1"}, {"RANK": "0"}, {"SLURM_PROCID": None}],
    ids=["one task", "torchrun inside", "no task"],
)
def test_everything_else_is_no_task(variables):
    environment = {name: value for name, value in {**SRUN, **variables}.items() if value is not None}
    assert slurm_variables(environment) == {}
    assert slurm_variables({}) == {}


def test_own_meeting_places_go_first():
    found = slurm_variables({**SRUN, "MASTER_ADDR": "head", "MASTER_PORT": "1234"})
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("head", "1234")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("gpu[03-05,9],login", "gpu03"), ("a[7]", "a7"), ("rack-2-n[01-4]", "rack-2-n01")],
)
def test_first_node(nodes, first):
    assert first_node(nodes) == first


def test_tasks_per_node():
    assert [tasks_per_node(text) for text in ("4", "4(x2)", "4,4", "8(x1)")] == [4, 4, 4, 8]
    with pytest.raises(ValueError, match=r"4\(x2\),2 tasks on the nodes; all nodes need the same number"):
        tasks_per_node("4(x2),2")
