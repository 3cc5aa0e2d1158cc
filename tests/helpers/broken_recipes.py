"""Broken recipes: what is wrong -> (the YAML of it, the line a user must see after the file)."""

HEAD = "name: bad\nmodel: toy-model\nstages:\n"
SFT = "  - {name: sft, algorithm: copy, with: {weight: 1}, roles: {teacher: initial}, data: toys}\n"

STAGES = {
    "a misspelt option": (
        "  - {name: a, algorithm: margin, data: toys, with: {betta: 1}}",
        "4:53: stages.0.with.betta: unknown option; did you mean 'beta'? "
        "(margin takes: beta, smoothing)",
    ),
    "text for a number": (
        "  - {name: a, algorithm: margin, data: toys, with: {beta: '1'}}",
        "4:59: stages.0.with.beta: must be a number, not '1'",
    ),
    "a value out of range": (
        "  - {name: a, algorithm: margin, data: toys, with: {smoothing: 0.6}}",
        "4:64: stages.0.with.smoothing: must be less than or equal to 0.5, not 0.6",
    ),
    "a missing option": (
        "  - {name: a, algorithm: copy, data: toys, roles: {teacher: initial}}",
        "4:5: stages.0.with.weight: is missing: weight of the teacher",
    ),
    "options that contradict each other": (
        "  - {name: a, algorithm: copy, data: toys, roles: {teacher: initial},\n"
        "     with: {weight: 2, cap: 1}}",
        "5:12: stages.0.with: cap must be at least weight",
    ),
    "a misspelt key of a block": (
        "  - {name: a, algorithm: margin, data: toys, rollaut: {}}",
        "4:46: stages.0.rollaut: unknown key; did you mean 'rollout'? (a train stage takes: "
        "name, algorithm, with, policy, roles, adapter, data, validation, train, rollout, rails, "
        "log_samples)",
    ),
    "the python name of a key": (
        "  - {name: a, algorithm: margin, data: toys, with_: {}}",
        "4:46: stages.0.with_: unknown key; did you mean 'with'? (a train stage takes: "
        "name, algorithm, with, policy, roles, adapter, data, validation, train, rollout, rails, "
        "log_samples)",
    ),
    "a misspelt key two blocks down": (
        "  - {name: a, stage: generate, data: toys, sampling: {temprature: 1}}",
        "4:55: stages.0.sampling.temprature: unknown key; did you mean 'temperature'? (sampling "
        "takes: max_new_tokens, min_new_tokens, temperature, top_p, top_k, stop)",
    ),
    "a value of the wrong type": (
        "  - {name: a, algorithm: margin, data: toys, train: {lr: fast}}",
        "4:58: stages.0.train.lr: must be a number, not 'fast'",
    ),
    "a rate that is not a number": (
        "  - {name: a, algorithm: margin, data: toys, train: {lr: .nan}}",
        "4:58: stages.0.train.lr: must be a finite number, not NaN",
    ),
    "true for a count": (
        "  - {name: a, algorithm: margin, data: toys, train: {steps: true}}",
        "4:61: stages.0.train.steps: must be a whole number, not true",
    ),
    "a word that is no choice": (
        "  - {name: a, algorithm: margin, data: {name: toys, too_long: dorp}}",
        "4:63: stages.0.data.too_long: must be 'truncate', 'drop' or 'error', not 'dorp'; "
        "did you mean 'drop'?",
    ),
    "a list that is too short": (
        "  - {name: a, algorithm: margin, data: toys, train: {betas: [0.9]}}",
        "4:61: stages.0.train.betas.1: is missing",
    ),
    "a block that is a list": (
        "  - {name: a, algorithm: margin, data: toys, with: [1]}",
        "4:52: stages.0.with: must be a block of keys, not [1]",
    ),
    "no data": (
        "  - {name: a, algorithm: margin}",
        "4:5: stages.0.data: is missing",
    ),
    "a name with a slash": (
        "  - {name: a/b, algorithm: margin, data: toys}",
        "4:12: stages.0.name: may hold only letters, digits, '.', '_' and '-', not 'a/b'",
    ),
    "neither algorithm nor stage": (
        "  - {name: a, data: toys}",
        "4:5: stages.0: a stage has either 'algorithm: NAME' (it trains) or 'stage: NAME' "
        "(generate, label, or a plug-in's stage)",
    ),
    "both algorithm and stage": (
        "  - {name: a, algorithm: margin, stage: generate, data: toys}",
        "4:5: stages.0: a stage has either 'algorithm: NAME' (it trains) or 'stage: NAME' "
        "(generate, label, or a plug-in's stage)",
    ),
    "a stage that is a word": (
        "  - sft",
        "4:5: stages.0: a stage has either 'algorithm: NAME' (it trains) or 'stage: NAME' "
        "(generate, label, or a plug-in's stage)",
    ),
    "two stages of one name": (
        f"{SFT}  - {{name: sft, algorithm: margin, data: toys}}",
        "5:12: stages.1.name: stage 0 is called 'sft' too",
    ),
    "a stage called initial": (
        "  - {name: initial, algorithm: margin, data: toys}",
        "4:12: stages.0.name: 'initial' is the recipe's own model; call the stage something else",
    ),
    "a stage that comes later": (
        f"  - {{name: a, algorithm: margin, policy: sft, data: toys}}\n{SFT}",
        "4:42: stages.0.policy: stage 'sft' comes later; a stage can use only earlier ones",
    ),
    "a stage that uses itself": (
        "  - {name: a, stage: generate, data: a}",
        "4:38: stages.0.data.name: stage 'a' cannot use itself; name an earlier stage",
    ),
    "a role played by a later stage": (
        "  - {name: a, algorithm: margin, data: toys, roles: {reference: b}}\n"
        "  - {name: b, algorithm: margin, data: toys}",
        "4:65: stages.0.roles.reference: stage 'b' comes later; a stage can use only earlier ones",
    ),
    "a misspelt stage": (
        f"{SFT.replace('sft', 'imitate')}  - {{name: b, algorithm: margin, policy: immitate,"
        " data: toys}",
        "5:42: stages.1.policy: no stage 'immitate'; did you mean 'imitate'?",
    ),
    "a length where answers are made": (
        "  - {name: a, stage: generate, data: {name: toys, max_length: 9}}",
        "4:63: stages.0.data.max_length: has no effect here, because this stage does not read it; "
        "take it out",
    ),
    "a misspelt dataset": (
        "  - {name: a, algorithm: margin, data: toyss}",
        "4:40: stages.0.data.name: no stage or dataset 'toyss'; did you mean 'toys'?",
    ),
    "a model where data is expected": (
        f"{SFT}  - {{name: b, algorithm: margin, data: sft}}",
        "5:40: stages.1.data.name: 'sft' is a train stage: it makes a model, not data",
    ),
    "data where a model is expected": (
        "  - {name: s, stage: generate, data: toys}\n"
        "  - {name: b, algorithm: margin, policy: s, data: toys}",
        "5:42: stages.1.policy: 's' is a generate stage: it makes samples, not a model",
    ),
    "pairs that nobody chose": (
        "  - {name: s, stage: generate, data: toys}\n  - {name: b, algorithm: margin, data: s}",
        "5:40: stages.1.data.name: margin needs preferences; put a label stage between it and 's'",
    ),
    "labels of labels": (
        "  - {name: s, stage: generate, data: toys}\n"
        "  - {name: p, stage: label, data: s, judge: length}\n"
        "  - {name: q, stage: label, data: p, judge: length}",
        "6:35: stages.2.data.name: 'p' is a label stage; a judge needs the responses of a "
        "generate stage",
    ),
    "an unknown algorithm": (
        "  - {name: a, algorithm: marjin, data: toys}",
        "4:26: stages.0.algorithm: unknown algorithm 'marjin'; did you mean 'margin'?",
    ),
    "an unknown judge": (
        "  - {name: a, stage: label, data: toys, judge: lenght}",
        "4:48: stages.0.judge: unknown judge 'lenght'; did you mean 'length'?",
    ),
    "an unknown stage": (
        "  - {name: a, stage: mixx}",
        "4:22: stages.0.stage: unknown stage 'mixx'; did you mean 'mix'?",
    ),
    "an unknown engine": (
        "  - {name: a, stage: generate, data: toys, engine: fats}",
        "4:52: stages.0.engine.name: unknown engine 'fats'; did you mean 'fast'?",
    ),
    "a misspelt option of a judge": (
        "  - {name: a, stage: label, data: toys, judge: length, with: {taget: 1}}",
        "4:63: stages.0.with.taget: unknown option; did you mean 'target'? (length takes: target)",
    ),
    "a misspelt option of a dataset": (
        "  - {name: a, algorithm: margin, data: {name: toys, with: {sise: 1}}}",
        "4:60: stages.0.data.with.sise: unknown option; did you mean 'size'? (toys takes: size)",
    ),
    "options for data that takes none": (
        "  - {name: a, algorithm: margin, data: {name: org/set, with: {size: 1}}}",
        "4:56: stages.0.data.with: 'org/set' is not a dataset of a plug-in, so it takes no options",
    ),
    "an unbound role": (
        "  - {name: a, algorithm: copy, with: {weight: 1}, data: toys}",
        "4:5: stages.0.roles: role 'teacher' is not bound; add roles: {teacher: <stage>}",
    ),
    "a misspelt role": (
        "  - {name: a, algorithm: margin, data: toys, roles: {refrence: initial}}",
        "4:54: stages.0.roles.refrence: unknown role; did you mean 'reference'? "
        "(margin has: reference)",
    ),
    "the policy among the roles": (
        "  - {name: a, algorithm: margin, data: toys, roles: {policy: initial}}",
        "4:54: stages.0.roles.policy: this role has a key of its own beside `roles`: "
        "`policy: NAME`",
    ),
    "a rate for a role that does not learn": (
        "  - {name: a, algorithm: margin, data: toys, train: {lr_by_role: {reference: 0.1}}}",
        "4:67: stages.0.train.lr_by_role.reference: not a role that margin trains "
        "(margin trains: policy)",
    ),
    "no rollout where samples are needed": (
        "  - {name: a, algorithm: online, data: toys}",
        "4:26: stages.0.algorithm: online trains on its own samples; add `rollout:`",
    ),
    "a rollout that makes no items of the kind that is learnt": (
        "  - {name: a, algorithm: marks, data: toys, rollout: {prompts: 64}}",
        "4:45: stages.0.rollout: marks declares the batch LabelledBatch, which a rollout cannot "
        "build; train on given data",
    ),
    "a pair of one answer": (
        "  - {name: a, algorithm: margin, data: toys,\n"
        "     rollout: {samples_per_prompt: 1, reward: {judge: length}}}",
        "5:36: stages.0.rollout.samples_per_prompt: margin learns from pairs, which are chosen "
        "among the answers to a prompt; make it 2 or more",
    ),
    "pairs that nothing tells apart": (
        "  - {name: a, algorithm: margin, data: toys, rollout: {samples_per_prompt: 2}}",
        "4:55: stages.0.rollout: margin learns from pairs, which are chosen among the answers to "
        "a prompt by what they earn; add `reward:`",
    ),
    "a rule for pairs where none are learnt": (
        "  - {name: a, algorithm: online, data: toys, rollout: {choose: best_worst}}",
        "4:56: stages.0.rollout.choose: has no effect: online does not learn from pairs; take it "
        "out",
    ),
    "a buffer of pairs that cannot be cut into batches": (
        "  - {name: a, algorithm: margin, data: toys,\n"
        "     rollout: {prompts: 40, samples_per_prompt: 3, choose: bradley_terry, reward: {judge: "
        "length}}}",
        "5:15: stages.0.rollout: a buffer of prompts x pairs of each = 80 pairs cannot be cut into "
        "batches of train.batch_size = 64; make it a multiple",
    ),
    "a loss that is measured against another model every time": (
        "  - {name: a, algorithm: moves, data: toys, validation: {data: toys}}",
        "4:57: stages.0.validation.metric: 'reference' moves with the policy, and loss is taken "
        "against it, so its values at two steps cannot be compared, nor those of others; take it "
        "out",
    ),
    "a drift without a start to measure it from": (
        "  - {name: a, algorithm: moves, data: toys, rails: {max_kl: 2}}",
        "4:61: stages.0.rails.max_kl: 'reference' moves with the policy, and no other role stays "
        "at its start to measure from; take it out",
    ),
    "a model for a role that is another one": (
        "  - {name: a, algorithm: moves, data: toys, with: {mix: 1}, roles: {reference: x/y}}",
        "4:69: stages.0.roles.reference: it is 'policy' at every moment; take this out",
    ),
    "a rule that cannot be followed": (
        "  - {name: a, algorithm: moves, data: toys, with: {mix: 2}}",
        "4:26: stages.0.algorithm: algorithm 'moves', `moving`: role 'reference' follows by mix 2 "
        "every 1; 0 < mix <= 1, and every >= 1",
    ),
    "a share of the data where there are no answers of the data": (
        "  - {name: a, algorithm: online, data: toys, rollout: {share: 0.5}}",
        "4:56: stages.0.rollout.share: online learns from its own samples alone; take it out",
    ),
    "a share of prompts that make two items each": (
        "  - {name: a, algorithm: copy, with: {weight: 1}, roles: {teacher: initial}, data: toys,\n"
        "     rollout: {share: 0.5, samples_per_prompt: 2}}",
        "5:16: stages.0.rollout.share: the data has one item for a prompt, so a sampled prompt "
        "must make one too: samples_per_prompt: 1, or a pair by best_worst",
    ),
    "groups that nobody samples": (
        "  - {name: a, algorithm: groups, data: toys}",
        "4:26: stages.0.algorithm: groups trains on its own samples; add `rollout:`",
    ),
    "a buffer that cannot be cut into batches": (
        "  - {name: a, algorithm: online, data: toys, rollout: {prompts: 65}}",
        "4:55: stages.0.rollout: a buffer of prompts x samples_per_prompt = 65 sequences cannot "
        "be cut into batches of train.batch_size = 64; make it a multiple",
    ),
    "one sample where samples are compared": (
        "  - {name: a, algorithm: siblings, data: toys, rollout: {prompts: 64}}",
        "4:57: stages.0.rollout.samples_per_prompt: siblings compares the answers to one prompt; "
        "make it 2 or more",
    ),
    "a second update without an importance ratio": (
        "  - {name: a, algorithm: once, data: toys, rollout: {prompts: 64, epochs: 2}}",
        "4:75: stages.0.rollout.epochs: once has no importance ratio, so answers serve one update; "
        "make it 1",
    ),
    "a buffer of two updates without an importance ratio": (
        "  - {name: a, algorithm: once, data: toys, rollout: {prompts: 128}}",
        "4:53: stages.0.rollout: once has no importance ratio, so answers serve one update; "
        "sample 64 (train.batch_size), not 128",
    ),
    "a reward from nowhere": (
        "  - {name: a, algorithm: online, data: toys, rollout: {reward: {}}}",
        "4:64: stages.0.rollout.reward: a reward needs exactly one of 'judge' and 'model'",
    ),
    "a reward from two sources": (
        "  - {name: a, algorithm: online, data: toys,\n"
        "     rollout: {reward: {judge: length, model: m}}}",
        "5:24: stages.0.rollout.reward: a reward needs exactly one of 'judge' and 'model'",
    ),
    "a micro-batch larger than the batch": (
        "  - {name: a, algorithm: margin, data: toys,\n"
        "     train: {batch_size: 8, micro_batch_size: 16}}",
        "5:47: stages.0.train.micro_batch_size: 16 is more than batch_size, which is 8",
    ),
    "a prompt longer than everything": (
        "  - {name: a, algorithm: margin, data: {name: toys, max_prompt_length: 2000}}",
        "4:72: stages.0.data.max_prompt_length: 2000 is more than max_length, which is 1024",
    ),
    "a batch too small for its method": (
        "  - {name: a, algorithm: siblings, data: toys, train: {batch_size: 1},\n"
        "     rollout: {prompts: 1, samples_per_prompt: 2, epochs: 1}}",
        "4:68: stages.0.train.batch_size: siblings compares the items of a batch; make it 2 or "
        "more",
    ),
    "samples of another distribution where a breach must stop": (
        "  - {name: a, algorithm: once, data: toys, rails: {on_breach: stop},\n"
        "     rollout: {sampling: {top_p: 0.9, min_new_tokens: 2, temperature: 0.5, top_k: 4}}}",
        "5:26: stages.0.rollout.sampling: once takes answers for samples of the policy, but with "
        "temperature 0.5, top_p 0.9, top_k 4, min_new_tokens 2 they are samples of another "
        "distribution, and its gradient is biased; sample at temperature 1 with top_p 1, top_k 0 "
        "and min_new_tokens 0 (on_breach: stop)",
    ),
    "a misspelt metric": (
        "  - {name: a, algorithm: margin, data: toys,\n"
        "     validation: {data: toys, metric: acuracy}}",
        "5:39: stages.0.validation.metric: unknown metric; did you mean 'accuracy'? "
        "(margin has: loss, accuracy)",
    ),
    "a duplicate key": (
        "  - {name: a, algorithm: margin, data: toys, name: b}",
        "4:46: stages.0.name: duplicate key; it is already on line 4",
    ),
    "a python object": (
        "  - {name: a, algorithm: margin, data: !!python/object:os.system toys}",
        "4:40: stages.0.data: the tag tag:yaml.org,2002:python/object:os.system is not allowed "
        "in a recipe",
    ),
}

EVALUATIONS = {
    "an unknown benchmark": (
        "{benchmark: quizz}",
        "6:24: evaluate.0.benchmark: unknown benchmark 'quizz'; did you mean 'quiz'?",
    ),
    "a misspelt option": (
        "{benchmark: quiz, with: {seize: 3}}",
        "6:37: evaluate.0.with.seize: unknown option; did you mean 'size'? (quiz takes: size)",
    ),
    "a model that is no stage": (
        "{benchmark: quiz, models: [sft, sfd]}",
        "6:44: evaluate.0.models.1: no stage 'sfd'; models are train stages or 'initial'; "
        "did you mean 'sft'?",
    ),
    "a model that is data": (
        "{benchmark: quiz, models: [s]}",
        "6:39: evaluate.0.models.0: 's' is a generate stage; models are train stages or 'initial'",
    ),
    "a baseline that is data": (
        "{benchmark: quiz, baseline: s}",
        "6:40: evaluate.0.baseline: 's' is a generate stage: it makes samples, not a model",
    ),
    "a KL to data": (
        "{benchmark: quiz, kl_to: [s]}",
        "6:38: evaluate.0.kl_to.0: 's' is a generate stage: it makes samples, not a model",
    ),
    "more tokens at least than at most": (
        "{benchmark: quiz, sampling: {min_new_tokens: 65}}",
        "6:57: evaluate.0.sampling.min_new_tokens: 65 is more than max_new_tokens, which is 64",
    ),
}
