"""Our IMM training step beside a plain PyTorch one: the same U-Net, batch, loss, Adam and EMA.

pip install -e '.[torch]'
taskset -c 0,1 python -m benchmarks.torch_step

In turns in one run, as `benchmarks.speed` does; both have as many threads as the process has cores.
First both must answer alike: from the same weights, examples, noise and times, the loss agrees to
1e-4 and the gradient's norm to 1e-3, or there is no table. On top of the PyTorch step ours checks
that loss and gradient are finite. The images are noise: no time depends on what is in them.
"""

from collections import OrderedDict
import os
from typing import Any

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import runs, speed
from configs import imm_digits
from dfim import train
from dfim.config import resolve
from dfim.core import interpolants
from dfim.interop import names
from dfim.models import unet
from dfim.training import state as train_state

_TORCH_ROUNDS = flags.DEFINE_integer("torch_rounds", 15, "Rounds over everything that is timed.")
_COMPILE = flags.DEFINE_bool("compile", False, "Time torch.compile too; it needs a C++ compiler.")

Tensor = torch.Tensor

OURS = "dfim"
EAGER = {"PyTorch": torch.contiguous_format, "PyTorch, channels last": torch.channels_last}
COMPILED = "PyTorch, torch.compile"

# A U-Net that a CPU can train on pooled garments, unconditional, and a step towards CIFAR-10's.
SIZES = dict(  # U-Net, image, batch
  small=(unet.UNet(24, (1, 2), 1, ()), (16, 16, 1), 128),
  larger=(unet.UNet(48, (1, 2, 2), 1, (16,)), (32, 32, 3), 32),
)
QUICK = dict(quick=(unet.UNet(8, (1, 2), 1, (4,)), (8, 8, 1), 8))

GROUP, SIGMA, DECAY, RATE, K, B, SEED = 4, 0.5, 0.999, 1e-3, 12.0, 4.0, 3
T_MAX, T_MIN = imm_digits.ENDS["t_max"], imm_digits.ENDS["t_min"]


def main(_) -> None:
  """Checks that both compute the same, times them and prints the table."""
  cores = len(os.sched_getaffinity(0))
  torch.set_num_threads(cores)
  sizes, rounds = (QUICK, 1) if runs.QUICK.value else (SIZES, _TORCH_ROUNDS.value)
  print(f"M = {GROUP}, {rounds} rounds; {cores} cores, jax {jax.__version__},", end=" ")
  print(f"torch {torch.__version__}.\n")
  print("| U-Net | step by | ms | img/s | of dfim's time |\n|---|---|--:|--:|--:|")
  for name, (net, image, batch) in sizes.items():
    x = SIGMA * np.random.default_rng(0).standard_normal((batch, *image), np.float32)
    check(net, x)
    calls = {OURS: our_step(net, x), **torch_steps(net, x)}
    print(rows(name, speed.measure(calls, rounds, repeats=3), batch), flush=True)


def our_loss() -> Any:
  """The objective as a config names it."""
  config = imm_digits.objective(mapping="eta_decrement", k=K, group_size=GROUP)
  return resolve.resolve(config, "objective")


def our_step(net: unet.UNet, x: np.ndarray) -> speed.Call:
  """The training step as `train` builds it."""
  tx = resolve.resolve(dict(name="optax.adam", learning_rate=RATE), "optimizer")
  t = jnp.ones((1, 1, 1, 1))
  params = net.init(jax.random.key(0), x[:1], t, t)
  state = train_state.init(params, tx, ema=(DECAY,))
  step = train.make_step(net.apply, our_loss(), tx)
  return speed.threaded(step, state, dict(x=jnp.asarray(x)), jax.random.key(1))


def torch_steps(net: unet.UNet, x: np.ndarray) -> dict[str, speed.Call]:
  """The PyTorch step in each way of running it."""
  steps = {
    name: TorchStep(UNet(net, x.shape[1:]), x, memory_format)
    for name, memory_format in EAGER.items()
  }
  if _COMPILE.value:
    step = TorchStep(UNet(net, x.shape[1:]), x, torch.channels_last)
    step.loss = torch.compile(step.loss)
    steps[COMPILED] = step
  return steps


def check(net: unet.UNet, x: np.ndarray) -> None:
  """Refuses to time two programs that do not compute the same.

  Raises:
    ValueError: with what differs, the loss or the norm of its gradient.
  """
  torch.manual_seed(0)
  other = UNet(net, x.shape[1:])
  for p in other.parameters():  # a network that starts at 0 would hide itself
    nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.1)
  ours, theirs = our_gradient(net, other, x), torch_gradient(other, x)
  for what, a, b, within in zip(("loss", "gradient"), ours, theirs, (1e-4, 1e-3), strict=True):
    if not abs(a - b) <= within * abs(b):
      raise ValueError(f"the two programs differ: {what} {a:.7g} here, {b:.7g} in PyTorch.")


def our_gradient(net: unet.UNet, other: nn.Module, x: np.ndarray) -> tuple[float, float]:
  """The loss, and the norm of its gradient, with the weights of `other`."""
  arrays = {name: p.numpy() for name, p in other.state_dict().items()}
  t = jnp.ones((1, 1, 1, 1))
  wanted = jax.eval_shape(net.init, jax.random.key(0), x[:1], t, t)
  params, loss = names.to_params(arrays, wanted, prefix="layers."), our_loss()
  of_params = lambda p: loss(net.apply, p, params, dict(x=jnp.asarray(x)), jax.random.key(SEED))[0]
  value, grads = jax.jit(jax.value_and_grad(of_params))(params)
  return float(value), float(optax.global_norm(grads))


def torch_gradient(other: nn.Module, x: np.ndarray) -> tuple[float, float]:
  """The same in PyTorch, of the noise and times that our objective draws."""
  key_times, key_noise, *_ = jax.random.split(jax.random.key(SEED), 4)  # as the objective splits it
  f, sample_times = (our_loss().keywords[k] for k in ("f", "sample_times"))
  times = sample_times(key_times, x.shape, path=f.path, group_size=GROUP)
  eps = SIGMA * interpolants.noise_like(key_noise, jnp.asarray(x))
  images = (torch.from_numpy(np.array(a)).permute(0, 3, 1, 2) for a in (x, eps))
  of_group = lambda u: torch.from_numpy(np.array(u).reshape(-1, GROUP)[:, 0])
  value = imm_loss(other, *images, *map(of_group, (times.s, times.r, times.t)))
  value.backward()
  return value.item(), nn.utils.get_total_norm([p.grad for p in other.parameters()]).item()


def rows(name: str, seconds: dict[str, np.ndarray], batch: int) -> str:
  """Markdown: times, images a second, and the median over rounds of the ratio to ours."""
  lines = []
  for which, each in seconds.items():
    low, ratio, high = np.quantile(each / seconds[OURS], (0.25, 0.5, 0.75))
    text = "" if which == OURS else f"{ratio:.2f} ({low:.2f}-{high:.2f})"
    median = np.median(each)
    lines.append(f"| {name} | {which} | {1e3 * median:.3g} | {batch / median:,.0f} | {text} |")
  return "\n".join(lines)


def imm_loss(net: nn.Module, x: Tensor, eps: Tensor, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
  """`objectives.moment_matching.loss` on the straight path; times `[G]`, images `[B, C, H, W]`."""
  each = lambda u: u.repeat_interleave(GROUP).view(-1, 1, 1, 1)
  s1, r1, t1 = each(s), each(r), each(t)

  def jump(u: Tensor) -> Tensor:
    x_u = (1 - u) * x + u * eps
    c_in = 1 / (SIGMA * torch.sqrt((1 - u) ** 2 + u**2))
    return x_u - (u - s1) * SIGMA * net(c_in * x_u, s1, u)

  y = jump(t1)
  with torch.no_grad():
    z = jump(r1)
  y, z = (a.reshape(len(t), GROUP, -1) for a in (y, z))
  scale = (1 / ((t - s) * SIGMA * y.shape[-1])).view(-1, 1, 1)

  def gram(a: Tensor, b: Tensor) -> Tensor:
    squared = (a[:, :, None] - b[:, None]).square().sum(-1)
    return torch.exp(-scale * squared.clamp_min(1e-8).sqrt()).mean((1, 2))

  power = t**2 + (1 - t) ** 2
  weight = t / ((t**2 + np.exp(-B) * (1 - t) ** 2) * power)
  return torch.mean(weight * (gram(y, y) + gram(z, z) - 2 * gram(y, z)))


class TorchStep:
  """One step of training: draws, two forwards, backward, Adam, EMA."""

  def __init__(self, net: nn.Module, x: np.ndarray, memory_format: torch.memory_format):
    self.net = net.to(memory_format=memory_format)
    self.x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
    self.params = list(net.parameters())
    self.averages = [p.detach().clone() for p in self.params]
    self.adam = torch.optim.Adam(self.params, lr=RATE, fused=True)
    self.loss = imm_loss

  def __call__(self) -> float:
    eps = SIGMA * torch.randn_like(self.x)
    self.adam.zero_grad()
    loss = self.loss(self.net, self.x, eps, *draw_times(len(self.x) // GROUP))
    loss.backward()
    self.adam.step()
    with torch.no_grad():
      torch._foreach_lerp_(self.averages, self.params, 1 - DECAY)
    return loss.item()


def draw_times(groups: int, gap: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
  """(s, r, t), `[groups]` each, as `core.times.sample` with `core.mappings.eta_decrement`."""
  u, v = torch.rand(2, groups)
  t = (T_MIN + (T_MAX - T_MIN) * u).clamp_min(T_MIN + gap)
  s = T_MIN + (t - gap - T_MIN) * v
  way = T_MAX / (1 - T_MAX) - T_MIN / (1 - T_MIN)
  eta = t / (1 - t) - way * 2**-K
  return s, torch.maximum(eta / (1 + eta), s), t


class UNet(nn.Module):
  """`models.unet.UNet` without labels or augmentation; its layers have the names of ours."""

  def __init__(self, net: unet.UNet, image: tuple[int, ...]):
    super().__init__()
    self.channels, self.time_scale = net.channels, net.time_scale
    (height, width, colours), emb = image, net.embed_multiplier * net.channels
    sizes = [f"{height >> i}x{width >> i}" for i in range(len(net.multipliers))]
    levels = [(n, m * net.channels) for n, m in zip(sizes, net.multipliers, strict=True)]
    attends = {n: height >> i in net.attention_resolutions for i, n in enumerate(sizes)}
    self.layers = nn.ModuleDict({name: mlp(net.channels, emb) for name in ("map_t", "map_s")})
    self.layers[f"enc_{sizes[0]}_conv"] = nn.Conv2d(colours, net.channels, 3, padding=1)
    skips = [h := net.channels]

    def add(name: str, channels: int, attention: bool = False) -> int:
      joined = h + (skips.pop() if takes_skip(name) else 0)
      self.layers[name] = Block(joined, channels, emb, attention, name.split("_")[-1])
      if name.startswith("enc"):
        skips.append(channels)
      return channels

    for size, channels in levels:
      if size != sizes[0]:
        h = add(f"enc_{size}_down", h)
      for i in range(net.blocks):
        h = add(f"enc_{size}_block{i}", channels, attends[size])
    add(f"dec_{sizes[-1]}_in0", h, attention=True)
    add(f"dec_{sizes[-1]}_in1", h)
    for size, channels in levels[::-1]:
      if size != sizes[-1]:
        h = add(f"dec_{size}_up", h)
      for i in range(net.blocks + 1):
        h = add(f"dec_{size}_block{i}", channels, attends[size] and i == net.blocks)
    self.layers[f"dec_{sizes[0]}_aux_norm"] = norm(h)
    self.layers[f"dec_{sizes[0]}_aux_conv"] = nn.Conv2d(h, colours, 3, padding=1)

  def forward(self, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """`x [B, C, H, W]`, times `[B, 1, 1, 1]` -> G."""
    map_t, map_s, first, *blocks, last_norm, last_conv = self.layers.values()
    emb = map_t(self._sinusoids(t)) + map_s(self._sinusoids(s))
    emb, h = F.silu(emb), first(x)
    skips = [h]
    for name, block in zip(list(self.layers)[3:], blocks, strict=False):
      h = block(torch.cat([h, skips.pop()], 1) if takes_skip(name) else h, emb)
      if name.startswith("enc"):
        skips.append(h)
    return last_conv(F.silu(last_norm(h)))

  def _sinusoids(self, u: Tensor) -> Tensor:
    half = self.channels // 2
    angle = self.time_scale * u.view(-1, 1) * 1e-4 ** (torch.arange(half) / (half - 1))
    return torch.cat([angle.sin(), angle.cos()], 1)


def takes_skip(name: str) -> bool:
  """Whether a block has an encoder's features beside what comes from the one before."""
  return name.startswith("dec") and "block" in name


class Block(nn.Module):
  """`models.unet.Block`; `kind` "down" and "up" resample."""

  def __init__(self, inputs: int, channels: int, emb: int, attention: bool, kind: str):
    super().__init__()
    self.kind = kind
    self.norm0, self.conv0 = norm(inputs), nn.Conv2d(inputs, channels, 3, padding=1)
    self.affine = nn.Linear(emb, channels)
    self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, channels, 3, padding=1)
    plain = inputs == channels and kind not in ("down", "up")
    self.skip = nn.Identity() if plain else nn.Conv2d(inputs, channels, 1)
    self.attends = attention
    if attention:
      self.norm2 = norm(channels)
      self.qkv, self.proj = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

  def forward(self, x: Tensor, emb: Tensor) -> Tensor:
    """`x [B, C, H, W]`, `emb [B, E]`."""
    h = self.conv0(self._resample(F.silu(self.norm0(x))))
    h = self.conv1(F.silu(self.norm1(h + self.affine(emb)[:, :, None, None])))
    h = unet.SKIP_SCALE * (h + self.skip(self._resample(x)))
    return unet.SKIP_SCALE * (h + self._attend(h)) if self.attends else h

  def _resample(self, h: Tensor) -> Tensor:
    if self.kind == "down":
      return F.avg_pool2d(h, 2)
    return F.interpolate(h, scale_factor=2, mode="nearest") if self.kind == "up" else h

  def _attend(self, h: Tensor) -> Tensor:
    b, c, height, width = h.shape
    qkv = self.qkv(self.norm2(h)).reshape(b, c, 3, height * width)
    q, k, v = (a.transpose(1, 2)[:, None] for a in qkv.unbind(2))  # [B, 1, N, C]
    mixed = F.scaled_dot_product_attention(q, k, v)
    return self.proj(mixed[:, 0].transpose(1, 2).reshape(b, c, height, width))


def norm(channels: int) -> nn.GroupNorm:
  """As ours: four channels a group or more, in at most 32 groups."""
  most = max(1, min(32, channels // 4))
  return nn.GroupNorm(next(n for n in range(most, 0, -1) if channels % n == 0), channels, eps=1e-6)


def mlp(inputs: int, width: int) -> nn.Sequential:
  """The embedding of a time."""
  layers = dict(layer0=nn.Linear(inputs, width), silu=nn.SiLU(), layer1=nn.Linear(width, width))
  return nn.Sequential(OrderedDict(layers))


if __name__ == "__main__":
  app.run(main)
