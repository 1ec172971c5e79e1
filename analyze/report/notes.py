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
    "differ is shown apart, seed by seed. Whether one map is sparser than another is a question to their difference, "
    "which has an interval of its own: two intervals that overlap do not answer it.",
)

# Numbered on the page: the maps first, then the agents, then how they are attacked.
DEVIATIONS = (
    "The paper says neither how many states its maps sum over nor which. Here N states are spread evenly over whole "
    "greedy episodes of each agent (“own”), and again over episodes shared by the agents compared (“pool”), so that a "
    "difference between maps is not one between states.",
    "The paper does not give T. Here T = 1 unless a row says otherwise; every temperature comes from the same sweep.",
    "The printed algorithms are not quite the equations: that of KMAP has Q(s, a) where equation 4 has Q(s, a*), that "
    "of HMAP leaves out the T of equation 6. The equations are used, so that K ≥ 0.",
    "Ablated Q-values that differ from the clean ones by no more than the rounding of the computation are taken as "
    "equal. S of a map that is 0 everywhere is undefined and is reported so.",
    "A KL map and a margin-drop map stand beside K and H, because an agent whose action no pixel can flip has K = 0 "
    "everywhere; and all of them beside those of random and of shuffled weights.",
    "The map entropy of UAI 2021 is a softmax over a sum of Q-values: it changes with N and with the scale of the "
    "rewards. It is given as printed, and of M / max |M|.",
    "Weights are rounded to 16 bits once, after training, and every number here was measured on the rounded ones. They "
    "are those of the last step; the reference code tests the checkpoint that played best.",
    "The target is that of Double DQN, as the paper says; the reference code takes the maximum of the target network.",
    "Equation 7 prints the hinge as c; the SA-DQN paper and its code clamp below at −c, and so does this project: at "
    "quick scale the margin of each state, at paper scale with PGD the sum over the batch, as the reference code does.",
    "At quick scale a share of the gradient of R is held (hold_advantages), because R also falls where one action "
    "leads in every state. At paper scale the gradient is that of equation 7.",
    "The robust loss is phased in. At quick scale κ grows under the full radius, which is 1.5/255 for PGD; at paper "
    "scale the radius grows from 0 to 1/255, where the reference PGD code has all of it at once.",
    "Unless the settings say otherwise a robust agent starts from the vanilla one of its seed, where the reference "
    "starts from random weights, and at quick scale its advantages are held to that one's (anchor). “DDQN continued” "
    "has the start, the steps and the anchor of SA-DDQN with κ = 0: it tells what the extra training alone does.",
    "SA-DDQN (interval bounds) has interval arithmetic all along, where the certified agents of the reference begin "
    "with tighter relaxations.",
    "Quick scale is for two cores: fewer steps, 10-step returns, a higher learning rate, an exploration rate for each "
    "environment, exploring actions that last, and bfloat16 where the CPU has it. Paper scale has the values of the "
    "reference, but eight environments for its one, a dueling network for every agent, and an exploration rate that "
    "ends at 0.01 and does not go on towards 0.",
    "The whole screen is resized in the same way for every agent; the reference code crops and transposes.",
    "An attack tries three objectives in turn at every state, each with its number of steps, those of PGD-K of "
    "2.5 ε / K, until one flips the action, and keeps the best point seen, the clean state included. The reference has "
    "one PGD of 10 steps of ε / 10 on the cross-entropy. FGSM steps along the sign of the gradient; equation 1 as "
    "printed in UAI 2021 divides it by its norm.",
)

NOTHING = (
    "There are no results under this outputs folder yet.",
    "`make reproduce` trains the agents, draws their maps and builds this page again. "
    "`make maps` does everything after training from the policies that come with the project.",
)
