# Every target does its own set-up; `script/test` and `script/demo` are the same for machines without make.
.PHONY: test demo bench lint type build exhaustive golden mutants soak lock clean

test:
	script/test

demo:
	script/demo

bench:
	script/bench

lint:
	script/check lint

type:
	script/check type

build:
	script/check build

# every starting state of tests/unit/test_frozen_worlds.py instead of a sample
exhaustive:
	FAILOVER_FROZEN_STRIDE=1 script/test tests/unit/test_frozen_worlds.py -q -n 2

# write the timelines of the library's scenarios anew; look at the difference before it is committed
golden:
	FAILOVER_GOLDEN=write script/test tests/sim/test_library.py tests/sim/test_seeds.py -q -n 2

# every mutant, hunted by the simulator: a table, and a failure when one survives
mutants:
	script/mutants

# many seeds on all cores: `make soak SEEDS=10000 FROM=1000`
SEEDS ?= 1000
FROM ?= 0
soak:
	script/simulate --seeds $(SEEDS) --from $(FROM)

# needs uv; writes hashes and no registry's address
lock:
	uv pip compile -q --generate-hashes --universal --python-version 3.11 --no-header --no-annotate -o requirements/run.lock pyproject.toml
	uv pip compile -q --generate-hashes --universal --python-version 3.11 --no-header --no-annotate -o requirements/dev.lock pyproject.toml requirements/dev.in

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
