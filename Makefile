# Every target does its own set-up; `script/test` and `script/demo` are the same for machines without make.
.PHONY: test demo bench lint type build exhaustive lock clean

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

# needs uv; writes hashes and no registry's address
lock:
	uv pip compile -q --generate-hashes --universal --python-version 3.11 --no-header --no-annotate -o requirements/run.lock pyproject.toml
	uv pip compile -q --generate-hashes --universal --python-version 3.11 --no-header --no-annotate -o requirements/dev.lock pyproject.toml requirements/dev.in

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
