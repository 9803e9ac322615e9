"""How the tests have XLA compile, which is where most of their time goes: quickly rather than well."""

from importlib.metadata import version

# What later versions of XLA no longer know: they refuse to start with it.
_OLD = ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
QUICKLY = ["--xla_backend_optimization_level=0", *(_OLD if version("jax").startswith("0.10.") else [])]
