"""Names of earlier versions that conf/ has otherwise now: a command that still says one is told the new one."""

# Files of conf/experiment, from before each paper and scale had a folder there.
EXPERIMENTS = {
    "cider/cifar10": "cider/full/cifar10_cider",
    "cider/cifar100": "cider/full/cifar100_cider",
    "cider/cifar100_ce": "cider/full/cifar100_ce",
    "cider/cifar100_code": "cider/full/cifar100_cider_code",
    "cider/cifar100_supcon": "cider/full/cifar100_supcon",
    "cider/cifar10_ce": "cider/full/cifar10_ce",
    "cider/cifar10_code": "cider/full/cifar10_cider_code",
    "cider/cifar10_supcon": "cider/full/cifar10_supcon",
    "cider/imagenet100": "cider/full/imagenet100_cider",
    "cider/imagenet100_code": "cider/full/imagenet100_cider_code",
    "demo/digits_energy_ft": "energy/demo/digits_energy_ft",
    "demo/digits_oe_ft": "energy/demo/digits_oe_ft",
    "demo/digits_softmax": "energy/demo/digits_softmax",
    "demo_cider/digits_ce": "cider/demo/digits_ce",
    "demo_cider/digits_cider": "cider/demo/digits_cider",
    "demo_cider/digits_supcon": "cider/demo/digits_supcon",
    "demo_jem/digits_ce": "jem/demo/digits_ce",
    "demo_jem/digits_jem": "jem/demo/digits_jem",
    "energy/cifar100_energy_ft": "energy/full/cifar100_energy_ft",
    "energy/cifar100_oe_ft": "energy/full/cifar100_oe_ft",
    "energy/cifar100_softmax": "energy/full/cifar100_softmax",
    "energy/cifar10_energy_ft": "energy/full/cifar10_energy_ft",
    "energy/cifar10_oe_ft": "energy/full/cifar10_oe_ft",
    "energy/cifar10_softmax": "energy/full/cifar10_softmax",
    "jem/cifar10": "jem/full/cifar10_jem",
    "jem/cifar100": "jem/full/cifar100_jem",
    "jem/cifar100_ce": "jem/full/cifar100_ce",
    "jem/cifar100_ce_plain": "jem/full/cifar100_ce_plain",
    "jem/cifar10_ce": "jem/full/cifar10_ce",
    "jem/cifar10_ce_plain": "jem/full/cifar10_ce_plain",
    "jem/cifar10_factored": "jem/full/cifar10_jem_factored",
    "jem/cifar10_paper": "jem/full/cifar10_jem_paper",
    "jem/cifar10_plus": "jem/full/cifar10_jem_plus",
    "oe/cifar100_baseline": "oe/full/cifar100_baseline",
    "oe/cifar100_oe_scratch": "oe/full/cifar100_oe_scratch",
    "oe/cifar100_oe_tune": "oe/full/cifar100_oe_tune",
    "oe/cifar10_baseline": "oe/full/cifar10_baseline",
    "oe/cifar10_oe_scratch": "oe/full/cifar10_oe_scratch",
    "oe/cifar10_oe_tune": "oe/full/cifar10_oe_tune",
    "oe/svhn_baseline": "oe/full/svhn_baseline",
    "oe/svhn_oe_scratch": "oe/full/svhn_oe_scratch",
    "oe/svhn_oe_tune": "oe/full/svhn_oe_tune",
    "small/cifar10_energy_ft": "energy/small/cifar10_energy_ft",
    "small/cifar10_oe_ft": "energy/small/cifar10_oe_ft",
    "small/cifar10_softmax": "energy/small/cifar10_softmax",
    "small_cider/cifar10_ce": "cider/small/cifar10_ce",
    "small_cider/cifar10_cider": "cider/small/cifar10_cider prototype_rule=ema proto_m=0.99",
    "small_cider/cifar10_supcon": "cider/small/cifar10_supcon",
    "small_from_trained/cifar10_energy_ft": "energy/small/cifar10_energy_ft init_from=RUN",
    "small_from_trained/cifar10_oe_ft": "energy/small/cifar10_oe_ft init_from=RUN",
    "small_from_trained/cifar10_softmax": "energy/small/cifar10_softmax",
    "small_jem/cifar10_ce": "jem/small/cifar10_ce",
    "small_jem/cifar10_jem": "jem/small/cifar10_jem",
}


# Scales named after the data set whose schedule they were: it goes with the set now, at this scale.
SCALES = {"svhn": "full"}


def renamed(group: str, name: object) -> str | None:
    """What `group=name` of an earlier version is now, in the words of a command line; None where it never was."""
    if group == "experiment" and isinstance(name, str) and name in EXPERIMENTS:
        return f"experiment={EXPERIMENTS[name]}"
    if group == "scale" and isinstance(name, str) and name in SCALES:
        return f"id_data={name} scale={SCALES[name]}"
    return None
