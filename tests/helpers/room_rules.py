"""Which room of the core may import which; tests/repository/test_architecture.py enforces it."""

# Each room, and all that it may import. An arrow that is missing here is a decision to be made.
ROOMS = {
    "contract": set(),
    "closed": {"contract"},
    "ops": {"contract", "closed"},
    "types": {"contract"},
    "data": {"contract"},
    "recipe": {"contract"},
    "engine": set(),
    "engine.models": {"contract"},
    "engine.parallel": {"contract"},
    "engine.sampling": {"contract", "engine.models"},
    "engine.scoring": {"contract", "ops", "engine.models", "engine.parallel"},
    "engine.layout": {"contract", "engine.models", "engine.parallel", "engine.scoring"},
    "engine.train": {"contract", "ops", "engine.layout", "engine.models", "engine.parallel"}
    | {"engine.sampling", "engine.scoring"},
    "engine.memory": {"contract", "ops", "engine.layout", "engine.models", "engine.parallel"}
    | {"engine.sampling", "engine.scoring", "engine.train"},
    "store": {"contract", "data", "recipe", "engine.parallel"},
    "judging": {"contract", "data", "store"},
    "judging.quality": {"contract", "data", "judging"},
    "pages": set(),
    "leaderboard": {"contract", "pages", "store"},
    "report": {"contract", "recipe", "store", "leaderboard", "pages", "engine.train", "lens"},
    "studies": {"contract", "recipe", "store", "pages", "studies.plots"},
    "studies.plots": {"contract", "store"},
    "launch": {"contract", "store"},
    "lens": {"contract", "ops", "data", "recipe", "store", "pages", "stages", "engine.models"}
    | {"engine.parallel", "engine.scoring", "engine.train"},
    "stages": {"contract", "data", "recipe", "store", "judging", "engine.models"}
    | {"engine.parallel"}
    | {"engine.layout", "engine.sampling", "engine.scoring", "engine.train"},
    "stages.evaluation": {"contract", "data", "recipe", "store", "judging", "judging.quality"}
    | {"stages", "engine.models", "engine.parallel", "engine.scoring"},
    "plan": {"contract", "recipe", "store", "engine.layout", "engine.memory", "engine.models"}
    | {"engine.parallel", "engine.sampling", "engine.train"},
    "run": {"contract", "recipe", "store", "judging", "leaderboard", "engine.parallel", "plan"}
    | {"stages", "stages.evaluation", "launch"},
    "testing": {"contract", "data", "recipe", "engine.parallel", "engine.sampling"}
    | {"engine.layout", "engine.scoring", "engine.train"},
    "cli.terminal": {"contract", "store", "engine.parallel", "launch"},
    "cli.looking": {"contract", "recipe", "store", "engine.sampling", "cli.terminal"}
    | {"studies.plots"},
    "cli.authoring": {"contract", "recipe", "testing", "cli.looking", "cli.terminal"},
    "cli.doing": {"contract", "data", "recipe", "store", "leaderboard", "stages", "plan", "run"}
    | {"engine.models", "engine.parallel", "cli.terminal", "launch", "lens", "report"}
    | {"studies"},
    "cli.evaluating": {"contract", "recipe", "store", "judging", "judging.quality", "run"}
    | {"cli.doing", "cli.terminal", "engine.parallel"},
    "cli": {"contract", "cli.looking", "cli.authoring", "cli.doing", "cli.evaluating"}
    | {"cli.terminal", "engine.parallel", "launch"},
    "__main__": {"cli"},
}
