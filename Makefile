# make run    a cluster of three nodes on this machine, http://127.0.0.1:8080 to 8082
# make test   everything that is checked before a change goes in
# make soak   lives of simulated clusters from new seeds (docs/simulation.md), MINUTES=10
# make lock   pin the newest versions of the dependencies that setup.cfg allows
# make clean  remove what these made; the data of make run stays (rm -r data)
#
# make test ends at the tenth failure: what breaks everything is told in a minute, not in an hour.
# Both run and test set up .venv first, and again when a dependency has changed.

VENV := .venv
BIN := $(VENV)/bin
SETUP := packaging/make_venv setup.cfg pyproject.toml packaging/requirements.lock

MINUTES := 10
LIVES := $(VENV)/lives.log

.PHONY: run test soak lock clean

run: $(VENV)/.installed
	$(BIN)/kritad dev --nodes 3 --port 8080 --data_dir ./data

# The simulator's lives, in which no clock but their own counts, go on a second processor beside
# the other tests. What they say is shown when both have ended.
test: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --maxfail=10 tests/simulator > $(LIVES) 2>&1 & lives=$$!; \
		$(BIN)/pytest --maxfail=10 --ignore=tests/simulator; rest=$$?; \
		wait $$lives; lives=$$?; cat $(LIVES); exit $$((rest | lives))

# Every soak begins at another seed, which it says: the number of seconds since 1970.
soak: $(VENV)/.installed-dev
	first=$$(date +%s); echo "from seed $$first on, for $(MINUTES) minutes"; \
		$(BIN)/python -m tests.simulator --minutes $(MINUTES) --first $$first

$(VENV)/.installed: $(SETUP)
	packaging/make_venv $(VENV) packaging/requirements.lock
	touch $@

# The development lock holds all of the other, so one installation serves both.
$(VENV)/.installed-dev: $(SETUP) packaging/requirements-dev.lock
	packaging/make_venv $(VENV) packaging/requirements-dev.lock
	touch $(VENV)/.installed $@

lock:
	packaging/make_lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find kritad kritash protocol tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +
