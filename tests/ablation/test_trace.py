"""The tracer: supported networks equal their parts and are ablated exactly; others are refused with a reason."""

import copy
from collections.abc import Callable

import pytest
import torch
from random_networks import ablated_one_by_one, joined, random_states
from torch import Tensor, nn
from torch.nn import functional

from bench.exactness import compare
from nrmap.ablation import AblationSpec, make_engine
from nrmap.ablation.parts import NetworkParts, Readout
from nrmap.ablation.recording import NotTraceable
from nrmap.ablation.trace import trace
from nrmap.policies.agent import Agent
from nrmap.support.errors import NrmapError

SHAPE = (2, 10, 9)
ACTIONS, ATOMS = 3, 4
Step = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """Layers that `form` combines, by default as the plain network does. States are float, 0 to 255."""

    def __init__(self, form: Callable[["Network", Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.form = form
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(2, 4, 3, 2), nn.Conv2d(4, 6, 2)
        self.hidden, self.other_hidden = nn.Linear(6 * 3 * 3, 8), nn.Linear(6 * 3 * 3, 5)
        self.out, self.other_out = nn.Linear(8, ACTIONS), nn.Linear(5, ACTIONS)
        self.deep_out, self.atoms = nn.Linear(ACTIONS, ACTIONS), nn.Linear(8, ACTIONS * ATOMS)
        self.dropout = nn.Dropout()
        self.register_buffer("mean", torch.rand(2, 1, 1))
        self.register_buffer("support", torch.linspace(-2, 3, ATOMS))
        self.offset = nn.Parameter(torch.rand(ACTIONS))

    def maps(self, states: Tensor) -> Tensor:
        return functional.relu(self.second(torch.relu(self.first(states / 255))))

    def units(self, states: Tensor) -> Tensor:
        return functional.relu(self.hidden(self.maps(states).flatten(1)))

    def plain(self, states: Tensor) -> Tensor:
        return self.out(self.units(states))

    def forward(self, states: Tensor) -> Tensor:
        return self.plain(states) if self.form is None else self.form(self, states)


def dueling_slices(network: Network, states: Tensor) -> Tensor:
    """Value and advantage read halves of one hidden layer, as in stable-baselines' and RLlib's dueling heads."""
    hidden = network.units(states)
    advantage = network.out(torch.cat([hidden[:, :4], -hidden[:, 4:]], dim=1)) * 0.5
    return advantage - torch.mean(advantage, 1, keepdim=True) + hidden[:, :1] / 4


def split_before_relu(network: Network, states: Tensor) -> Tensor:
    one, other = network.hidden(network.maps(states).flatten(1)).split([2, 6], dim=1)
    return network.out(torch.cat([other.relu(), one.relu()], dim=-1))


def two_hidden_layers(network: Network, states: Tensor) -> Tensor:
    """Each reads features that were flattened for it alone."""
    maps = network.dropout(network.maps(states))
    added = network.out(network.hidden(maps.flatten(start_dim=1)).relu())
    return added - network.other_out(network.other_hidden(maps.flatten(1)).relu()) + network.offset


def some_features(network: Network, states: Tensor) -> Tensor:
    features = network.maps(states).flatten(2)[:, 1:].flatten(1)  # without channel 0
    return network.out(network.hidden(torch.cat([features, features[:, :9]], dim=1)).relu())


def cast_to_its_weights(network: Network, states: Tensor) -> Tensor:
    """Casts of a policy that may run in half precision."""
    features = network.maps(states.to(network.first.weight.dtype)).flatten(1)
    return (network.out(network.hidden(features).relu()) + network.offset * 2).to(network.out.weight.dtype)


def functions_of_weights(network: Network, states: Tensor) -> Tensor:
    maps = functional.conv2d(states / 255, network.first.weight, network.first.bias, stride=(2, 2))
    maps = functional.conv2d(maps.relu(), network.second.weight).relu()
    hidden = functional.linear(maps.flatten(1), network.hidden.weight).relu()
    return functional.linear(hidden, network.out.weight, network.out.bias)


def unused_branch(network: Network, states: Tensor) -> Tensor:
    """An auxiliary head that does not contribute."""
    network.auxiliary = functional.max_pool2d(network.maps(states), 3).sum()
    return network.plain(states)


class Padded(Network):
    """Zeros around states and maps, different on each side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden = nn.Conv2d(2, 4, 4, 3, padding=(1, 2)), nn.Linear(6 * 5 * 4, 8)
        self.second, self.pad = nn.Conv2d(4, 6, 2, padding="same"), nn.ZeroPad2d((1, 0, 2, 1))

    def plain(self, states: Tensor) -> Tensor:
        maps = torch.relu(self.first(functional.pad(states, (0, 1)) / 255))
        return self.out(self.hidden(self.second(self.pad(maps)).relu()[:, :, 2:].flatten(1)).relu())


class Normalised(Network):
    """Batch normalisation behind the convolutions, and scaling of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in (4, 6))
        for norm in self.norms:
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(tensor, 0.2, 1.5)
        self.norms[1].affine = False
        self.register_buffer("gain", torch.tensor([0.5, -2.0, 1.0, 3.0])[:, None, None])

    def plain(self, states: Tensor) -> Tensor:
        maps = self.norms[0](self.first(states / 255) * self.gain).relu()
        return self.out(self.hidden(self.norms[1](self.second(maps)).relu().flatten(1)).relu())


def categorical_dueling(network: Network, states: Tensor) -> Tensor:
    """C51 with dueling logits, and the expectation as a matrix product."""
    logits = network.atoms(network.units(states)).unflatten(1, (ACTIONS, ATOMS))
    logits = logits - logits.mean(1, keepdim=True) + network.support
    return logits.log_softmax(dim=-1).exp() @ network.support


AFFINE_BEHIND_RELU = {
    **dict.fromkeys(("plain", "padded", "normalised")),
    **{
        form.__name__: form
        for form in (
            dueling_slices, split_before_relu, two_hidden_layers, some_features, cast_to_its_weights,
            functions_of_weights, unused_branch,
        )
    },
    "reshape by size": lambda n, s: n.out(n.hidden(n.maps(s).view(s.size(0), -1)).relu()),
    "reshape by length":
        lambda n, s: n.out(n.hidden(n.maps(s).contiguous().reshape(len(s), -1)).relu_()).view(s.shape[0], ACTIONS),
    "features in TensorFlow's order": lambda n, s: n.out(n.hidden(n.maps(s).permute(0, 2, 3, 1).flatten(1)).relu()),
    "one bias for all units":
        lambda n, s: n.out(torch.addmm(n.offset[0], n.maps(s).flatten(1), n.hidden.weight.T).relu()),
    "one bias for all actions": lambda n, s: torch.addmm(n.offset[None, :1], n.units(s), n.out.weight.T),
    "channels scaled apart": lambda n, s: n.plain((s / 100 - n.mean).clamp(min=-0.5) * 2),
    "quantiles": lambda n, s: n.atoms(n.units(s)).view(-1, ATOMS, ACTIONS).mean(dim=1),
    "quantiles by action": lambda n, s: n.atoms(n.units(s)).view(len(s), ACTIONS, ATOMS).mean(2),
}  # fmt: skip
OTHERS = {
    "categorical":  # C51: the expectation of a softmax over atoms
        lambda n, s: (n.atoms(n.units(s)).view(s.shape[0], ACTIONS, ATOMS).softmax(dim=2) * n.support).sum(dim=2),
    "categorical dueling": categorical_dueling,
    "deep": lambda n, s: n.deep_out(torch.relu(n.plain(s))),
    "no hidden activation": lambda n, s: n.out(n.hidden(n.maps(s).flatten(1))),
    "product": lambda n, s: (q := n.plain(s)) * q,
    "logits": lambda n, s: n.plain(s).log_softmax(1),
    "deep in float64": lambda n, s: functional.linear(
        torch.relu(n.plain(s)).double(), n.deep_out.weight.double(), n.deep_out.bias.double()
    ).to(n.offset.dtype),
}  # fmt: skip
FORMS = AFFINE_BEHIND_RELU | OTHERS
IN_BOTH_LAYOUTS = (
    "plain", "two_hidden_layers", "features in TensorFlow's order", "padded", "normalised", "categorical",
)  # fmt: skip


def parts_of(network: Callable[[Tensor], Tensor]) -> NetworkParts:
    return trace(Agent(network, SHAPE, input_scale=1.0).forward, random_states(3, *SHAPE))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("name", "layout"),
    [*((name, "contiguous_format") for name in FORMS), *((name, "channels_last") for name in IN_BOTH_LAYOUTS)],
)
@torch.no_grad()
def test_every_form_is_ablated_exactly_in_either_memory_layout(name, layout):
    network = Padded() if name == "padded" else Normalised() if name == "normalised" else Network(FORMS[name])
    network = network.eval().to(memory_format=getattr(torch, layout))
    states, spec = random_states(2, *SHAPE), AblationSpec(30)
    parts = parts_of(network)
    assert len(parts.convolutions) == 2
    assert isinstance(parts.tail, Readout) == (name in AFFINE_BEHIND_RELU)
    exact = copy.deepcopy(network).double()
    torch.testing.assert_close(parts.q_values(states), network(states.float()))
    torch.testing.assert_close(parts.double().q_values(states), exact(states.double()), rtol=1e-6, atol=1e-6)
    agent = Agent(network, SHAPE, input_scale=1.0)
    by_loop = ablated_one_by_one(lambda ablated: exact(ablated.double()), states, spec)
    for engine in ("incremental", "dense"):
        q_values, _ = joined(make_engine(agent, spec=spec, engine=engine).ablate(states))
        assert compare(q_values, by_loop).exact


def changed_network(
    scale: Step = lambda s: s / 255,
    first: nn.Module | None = None,
    between: Step = torch.relu,
    flat: Step = lambda m: m.flatten(1),
    last: Step = lambda q: q,
    whole: Callable[[Network, Tensor], Tensor] | None = None,
) -> Network:
    """The plain network with some of its steps replaced, or with another `whole`."""
    steps = lambda n, s: last(n.out(n.hidden(flat(n.second(between(n.first(scale(s)))))).relu()))  # noqa: E731
    network = Network(whole or steps).eval()
    network.first = first or network.first
    return network


def in_place(tensor: Tensor) -> Tensor:
    tensor[:, :1].relu_()
    return tensor


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ({"between": lambda m: functional.max_pool2d(m, 1)}, "max_pool2d_with_indices stands between convolutions"),
        ({"between": torch.tanh}, "tanh stands between convolutions"),
        ({"between": lambda m: m + m.relu()}, "convolutions branch at add"),
        ({"between": lambda m: m.relu() * 2}, "mul stands between convolutions behind a ReLU"),
        ({"between": lambda m: functional.pad(m.relu(), (1, 0), value=1.0)[..., 1:]}, "constant_pad_nd stands between"),
        ({"between": lambda m: functional.pad(m, (1, 0))[..., 1:]}, "slice stands between padding and a convolution"),
        ({"between": lambda m: functional.pad(m, (1, 1, 1, 1), "reflect")[..., 1:-1, 1:-1]}, "reflection_pad2d"),
        ({"between": in_place}, "changes a part of a tensor in place"),
        ({"scale": lambda s: s - torch.rand(SHAPE[1:])}, "draws random numbers"),
        ({"scale": lambda s: s - torch.arange(90).view(10, 9)}, "scaling is not the same for all pixels"),
        ({"scale": lambda s: s - s.amax((1, 2, 3), keepdim=True)}, "amax reads the states"),
        ({"scale": lambda s: s / s.max().item()}, "Python code reads values of the states"),
        ({"scale": lambda s: s if s.sum() > 0 else -s}, "Python code reads values of the states"),
        ({"scale": lambda s: functional.pad(s, (1, 1))[..., 1:-1]}, "slice stands between padding and a convolution"),
        ({"flat": lambda m: m.flatten(1).tanh()}, "tanh stands between Flatten and Linear"),
        (
            {"whole": lambda n, s: n.out(torch.addmm(torch.ones(len(s), 1), n.maps(s).flatten(1), n.hidden.weight.T))},
            "addmm stands between Flatten and Linear",
        ),
        ({"last": lambda q: q - q.mean(dim=0, keepdim=True)}, "mean behind the hidden layer is not supported"),
        ({"last": lambda q: q.T.reshape(-1, 3)}, "permute behind the hidden layer is not supported"),
        ({"last": lambda q: q - q.mean()}, "mean behind the hidden layer is not supported"),
        ({"last": lambda q: q.sort(1).values}, "sort behind the hidden layer is not supported"),
        ({"last": lambda q: q + torch.rand(len(q), 1)}, "draws random numbers"),
        ({"last": lambda q: q + torch.ones(len(q), 1)}, "add behind the hidden layer is not supported"),
        ({"last": lambda q: torch.zeros(len(q), 3)}, "do not depend on the states by tensor operations"),
        ({"last": lambda q: torch.from_numpy(q.numpy())}, "Python code reads values of the states"),
        ({"last": lambda q: torch.from_dlpack(q)}, "Python code reads values of the states"),
        ({"last": lambda q: q + torch.tensor(q.tolist())}, "Python code reads values of the states"),
        ({"between": lambda m: m.data.relu_() * 0 + m}, "Python code reads values of the states"),
        ({"last": lambda q: (q > 0).float() + (q > 1).float()}, "computes with whole numbers or flags"),
        ({"between": lambda m: m + torch.ones(len(m), 1, 1, 1)}, "add stands between convolutions"),
        (
            {"scale": lambda s: functional.pad(s, (1, 0)) * functional.pad(s, (0, 1))},
            "mul stands between padding and a convolution",
        ),
        (
            {"whole": lambda n, s: (n.maps(s).flatten(2) @ torch.ones(9, 3)).relu().mean(1)},
            "mm stands between Flatten and Linear",
        ),
        (
            {
                "whole": lambda n, s: functional.linear(
                    functional.conv2d(s, torch.ones(4, 2, 1, 1), stride=20, padding=1).flatten(1), torch.ones(3, 4)
                )
            },
            "first convolution reads only padding",
        ),
        ({"last": lambda q: (q, q)}, "does not return a single tensor"),
        ({"last": lambda q: q.view(-1, 2, 2)}, "cannot be recorded: shape .* is invalid"),
        ({"first": nn.Sequential(nn.ConvTranspose2d(2, 2, 1), nn.Conv2d(2, 4, 3, 2))}, "only two-dimensional"),
        ({"first": nn.Conv2d(2, 4, 5, 2, 1, padding_mode="reflect")}, "reflection_pad2d reads the states"),
        ({"first": nn.Sequential(nn.Conv2d(2, 4, 3, 2), nn.BatchNorm2d(4).train())}, "batch_norm stands between"),
        ({"first": nn.Sequential(nn.Dropout().train(), nn.Conv2d(2, 4, 3, 2))}, "draws random numbers"),
        ({"whole": lambda n, s: n.bfloat16().plain(s.bfloat16()).float()}, r"it computes in torch\.bfloat16"),
        ({"whole": lambda n, s: torch.relu(n.first(s))}, "not made of convolutions, Flatten and Linear"),
        ({"whole": lambda n, s: n.plain(s) + n.first(s).sum((2, 3))[:, :3]}, "several convolutions read"),
    ],
)
@torch.no_grad()
def test_reasons_for_refusal(steps, reason):
    with pytest.raises(NotTraceable, match=reason):
        parts_of(changed_network(**steps))


@torch.no_grad()
def test_operations_that_could_draw_random_numbers_and_do_not_are_ablated_one_by_one():
    def attends(network: Network, states: Tensor) -> Tensor:
        tokens = functional.rrelu(network.maps(states), training=False).flatten(2)
        return network.out(network.hidden(functional.scaled_dot_product_attention(*[tokens] * 3).flatten(1)).relu())

    network, states = Network(attends).eval(), random_states(1, *SHAPE)
    engine = make_engine(Agent(network, SHAPE, input_scale=1.0), spec=AblationSpec())
    assert engine.name == "dense"
    by_loop = ablated_one_by_one(lambda ablated: network(ablated.float()).double(), states, AblationSpec())
    torch.testing.assert_close(joined(engine.ablate(states))[0].double(), by_loop)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_the_rounding_floor_is_that_of_the_outputs(dtype):
    network, states = Network().eval(), random_states(2, *SHAPE)
    rounded = copy.deepcopy(network).to(dtype)
    exact = copy.deepcopy(rounded).double()
    agent = Agent(lambda states: rounded(states.to(dtype)), SHAPE, input_scale=1.0)
    engine = make_engine(agent, spec=AblationSpec())
    q_values, clean = joined(engine.ablate(states))
    exact_q = ablated_one_by_one(lambda ablated: exact(ablated.double()), states, AblationSpec())
    change, exact_change = (
        q - q0[:, None, None] for q, q0 in ((q_values.double(), clean.double()), (exact_q, exact(states.double())))
    )
    assert (change - exact_change).abs().max() <= engine.rounding_floor


def test_rare_random_numbers_are_refused_too():
    """Two calls of such a network agree nearly always, so that comparing outputs would miss it."""
    network = Network().eval()
    agent = Agent(lambda states: functional.dropout(network(states), 1e-7, training=True), SHAPE)
    for engine in ("auto", "dense"):
        with pytest.raises(NrmapError, match=r"no fixed function of the state: .* draws random numbers"):
            make_engine(agent, spec=AblationSpec(), engine=engine)
