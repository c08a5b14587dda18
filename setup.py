"""Packaging. Every dependency says in one line why it is there."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'VERSION = "(.+)"', (ROOT / "dfim/io/version.py").read_text())[1]

setuptools.setup(
  name="dfim",
  version=VERSION,
  description="Inductive moment matching and diffusion forcing in JAX.",
  long_description=(ROOT / "README.md").read_text(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=setuptools.find_namespace_packages(include=["dfim*", "configs*"]),
  install_requires=[
    "jax>=0.10,<0.13",  # arrays, gradients, compilation, devices
    "flax>=0.12",  # linen networks and pytree dataclasses
    "optax>=0.2.8",  # optimizers, schedules, EMA
    "orbax-checkpoint>=0.12,<0.13",  # asynchronous, atomic checkpoints
    "tensorstore>=0.1.84",  # what Orbax writes with; dfim/checkpoints/orbax_workarounds.py keeps its leak small
    "chex>=0.1.90",  # comparisons of trees and trace counts in tests
    "ml_collections>=1.1",  # configs that the command line can override
    "tensorflow-datasets>=4.9.9",  # image sets by name; works without tensorflow
    "clu>=0.0.12",  # TensorBoard writers where tensorflow is
    "absl-py>=2.1",  # flags and logging
    "numpy>=2.0",  # host-side batches, float64 moments
    "scipy>=1.13",  # independent matrix square root and distances in tests
    "scoringrules>=0.10",  # exact CRPS of ensembles
    "scikit-learn>=1.5",  # ships the 8x8 digits, the default data set
    "pillow>=10.1",  # PNG sample grids and folders of images
    "safetensors>=0.5",  # weights in and out of other programs
    "tensorboardX>=2.6",  # TensorBoard events without tensorflow
  ],
  extras_require={
    # reading prepared tfds sets: random access files, worker processes, a lazy import of tfds
    "tfds": ["array_record>=0.8", "grain>=0.2.16", "importlib_resources>=6"],
    # preparing the official tfds sets, and clu's own TensorBoard writers
    "tensorflow": ["tensorflow-cpu>=2.18", "tensorboard>=2.18"],
    # --mode=compile: libtpu, which compiles for TPUs also where there is none
    "tpu": ["jax[tpu]>=0.10,<0.13; platform_system == 'Linux' and platform_machine == 'x86_64'"],
    # the point mazes in MuJoCo, which dfim/envs is compared with step by step
    "planning": ["ogbench>=1.2.2,<1.3", "mujoco>=3.1.6,<5"],
    # figures of the benchmarks and of the Colabs
    "plot": ["matplotlib>=3.8"],
    # the test suite: runner, time limits, two processes at a time, executed notebooks, hostile
    # inputs, style
    "test": [
      "pytest>=8",
      "pytest-timeout>=2.3",
      "pytest-xdist>=3.6",
      "nbclient>=0.10",
      "ipykernel>=6",
      "matplotlib>=3.8",
      "hypothesis>=6.100",
      "ruff>=0.8",
    ],
  },
)
