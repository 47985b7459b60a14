"""Tables of results/: what they show once, and what has tables of its own."""

from farout.config.settings import ROOT
from farout.reproduce.ledger import read_files
from farout.reproduce.result_tables import result_tables


def test_no_table_has_a_column_twice_and_networks_of_others_stand_only_beside_what_began_with_them() -> None:
    """The ResNet-20 that others trained is evaluated on more lists of sets than what was fine-tuned from it."""
    text = result_tables(read_files(ROOT / "results"))
    heads = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|  |")]
    assert len(heads) >= 6
    assert [head for head in heads if len(set(head)) < len(head)] == []
    begun = text.split("### Energy: scale small, from a network that others trained")
    assert len(begun) == 2 and "| softmax | energy | OE | energy fine-tuned |" in begun[1].split("###")[0]
    assert "literature-imported-cifar10_resnet56" not in text
