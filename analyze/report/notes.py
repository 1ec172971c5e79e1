"""What the page says in words: how to read it, and where this project departs from the paper."""

READING = (
    "KMAP, K(i, j), is the drop in Q, summed over states, when the agent follows the action that it would take "
    "with pixel (i, j) set to 0. HMAP, H(i, j), is the cross-entropy between its softmax policies with and without "
    "that pixel. Sparsity S is ‖M‖₁ / ‖M‖₂: 1 for a single pixel, 84 for a flat map of 84 × 84; smaller is sparser.",
    "S(K) grows with the number of states N, because a pixel counts once it flips any action. The paper states "
    "neither N nor T. Compare methods at equal N, and expect the paper's order and ratio rather than its digits.",
    "HMAP contains the entropy of the policy itself at every pixel, so its S is close to the maximum wherever the "
    "policy is not sharp. The KL map leaves that entropy out. An agent whose action no single pixel can flip has "
    "K = 0 everywhere: S(K) is then undefined, and the margin-drop map, which needs no flip, stands beside it.",
    "Square brackets are 95% intervals over episodes for this very policy. How much another training run would "
    "differ is shown apart, seed by seed.",
)

# Numbered on the page. Each begins with what the sources have and goes on with what is done here.
DEVIATIONS = (
    "The paper does not say how many states, or which. Here N states are spread evenly over whole greedy episodes "
    "of each agent (“own”), and again over episodes shared by all agents compared (“pool”), so that a difference "
    "between maps is not a difference between states.",
    "The paper does not state T. Here T = 1 unless a row says otherwise; every temperature comes from the same sweep.",
    "Algorithm 2 prints Q(s, a) where equation 4 has Q(s, a*). Equation 4 is used, so that K ≥ 0.",
    "Algorithm 1 leaves out the temperature of equation 6. Equation 6 is used.",
    "Where the ablated Q-values differ from the clean ones by no more than the rounding of the computation, they are "
    "taken as equal. S of a map that is 0 everywhere is undefined and is reported so.",
    "Equation 7 prints the hinge as c; the SA-DQN paper and its code clamp below at −c, and so does this project. "
    "Whether the clamp is on the sum over a batch or on each sample is the setting hinge_reduction.",
    "The reference code's Q-learning target is not double; here it is Double DQN, as the paper says, with n-step "
    "returns.",
    "The reference trains each agent from scratch for 6 million steps. Here, unless the settings say otherwise, "
    "training is shorter and the robust agent starts from the vanilla one of the same seed. “DDQN continued” has the "
    "same start, steps and schedule with κ = 0: it tells what the extra training alone does.",
    "Exploration is ε-greedy with a different ε in every environment, and an exploring action may be kept for several "
    "steps; the reference uses one ε and single steps.",
    "The reference's PGD uses the full radius as soon as it starts; here the radius grows over a ramp.",
    "The reference code crops and transposes its frames. Here the whole screen is resized in the same way for every "
    "agent.",
    "The reference evaluates under 10 iterations of PGD. Here an attack tries three objectives in turn at every state, "
    "each with the stated number of steps, and keeps the best point seen, the clean state included.",
    "Weights are rounded to 16 bits once, after training. Every number here was measured on the rounded weights.",
    "The map entropy of UAI 2021 is a softmax over a sum of Q-values: it changes with N and with the scale of the "
    "rewards. It is given as printed, and on M / max |M|.",
)

NOTHING = (
    "There are no results under this outputs folder yet.",
    "`make reproduce` trains the agents, draws their maps and builds this page again. "
    "`make maps` does everything after training from the policies that come with the project.",
)
