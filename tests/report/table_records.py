"""Records for tests of tables: maps, their grid, and play."""

from nrmap.support.records import BASELINES, Record

JACKKNIFE = "jackknife over 16 episodes, for this policy"


def map_record(method, seed, map_kind, metric, value, **fields) -> Record:
    fields = {"states_from": "own", "num_states": 256, "episodes": 16, "policy_sha256": f"{method}{seed}"} | fields
    return Record("Freeway", method, seed, metric, value, map_kind=map_kind, **fields)


SPARSITIES = [
    map_record("ddqn", 0, "kmap", "sparsity", 41.98125, low=39.5, high=44.25, interval=JACKKNIFE),
    map_record("ddqn", 1, "kmap", "sparsity", 44.5, low=40.0, high=49.0, interval=JACKKNIFE),
    map_record("sa_ddqn", 0, "kmap", "sparsity", 12.25, low=10.5, high=14.0, interval=JACKKNIFE),
    map_record("sa_ddqn", 1, "kmap", "sparsity", None, note="the map is 0 everywhere"),
    map_record("ddqn", 0, "hmap", "sparsity", 83.9998766, temperature=1.0, note="too few episodes"),
    map_record("sa_ddqn", 0, "hmap", "sparsity", 83.5, temperature=1.0, low=83.25, high=83.75, interval=JACKKNIFE),
    map_record("sa_ddqn", 0, "hmap", "sparsity", 70.0, temperature=0.1),
    map_record("ddqn", 0, "kmap", "sparsity", 20.0, num_states=64, prefix=True),
]


def grid_records(method: str, seed: int | None, **fields) -> list[Record]:
    quantiles = {"null": (1.125, 1.0, 0.9), "crop": (4.0, 3.0, 2.0)}
    return [
        map_record(method, seed, "kl", "grid_excess", 3.5, low=3.0, high=4.0, interval=JACKKNIFE, **fields),
        map_record(method, seed, "kl", "grid_excess", 9.0, direction="vertical", **fields),
        map_record(method, seed, "kl", "grid_p_value", 0.005, **fields),
        *(
            map_record(method, seed, "kl", f"grid_{name}_quantile", value, quantile=quantile, **fields)
            for name, values in quantiles.items()
            for quantile, value in zip((0.95, 0.5, 0.05), values, strict=True)
        ),
    ]


def play_record(metric: str, value: float, **fields) -> Record:
    of_network = fields.get("method") not in BASELINES
    fields = {"episodes": 20, "attack": "clean", "policy_sha256": "abc" if of_network else None} | fields
    return Record("Freeway", fields.pop("method", "sa_ddqn"), fields.pop("seed", 0), metric, value, **fields)


PLAYED = [
    play_record("return_mean", 29.5, low=29.0, high=30.0, interval="jackknife over 20 episodes, for this policy"),
    play_record("return_std", 1.25),
    play_record("return_mean", 28.0, attack="pgd", attack_steps=10, attack_epsilon=1 / 255),
    play_record("flip_rate", 0.0125, attack="pgd", attack_steps=10, attack_epsilon=1 / 255),
    play_record("return_mean", 27.0, attack="pgd", attack_steps=50, attack_epsilon=1 / 255, episodes=5),
    play_record("return_mean", 20.0, attack="pgd", attack_steps=10, attack_epsilon=3 / 255),
    play_record("return_mean", 29.0, attack="noise", attack_epsilon=1 / 255),
    play_record("return_mean", 21.75, method="constant_action", variant="UP", seed=None),
    play_record("return_mean", 0.5, method="random_policy", seed=None),
    play_record("action_share", 0.75, action="UP"),
    play_record("action_share", 0.25, action="NOOP"),
    play_record("q_gap_quantile", 0.125, quantile=0.5, num_states=1000),
]
