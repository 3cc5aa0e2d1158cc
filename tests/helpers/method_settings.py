"""Methods in settings whose every signal is read where the batch's mask says.

The reward model (one value per row) and ORPO (prompts too) read elsewhere; their golden vectors and
own tests hold them.
"""

from alignzoo_aligndistil import AlignDistil
from alignzoo_cpo import CPO, CPOSimPO
from alignzoo_dpo import DPO, IPO, HingeDPO
from alignzoo_kto import KTO
from alignzoo_ppo import PPO
from alignzoo_sft import SFT
from alignzoo_simpo import HingeSimPO, SimPO
from alignzoo_tdpo import TDPO1, TDPO2

METHODS = {
    "sft": SFT(),
    "sft-per-sequence": SFT(reduction="sequence_mean"),
    "dpo": DPO(),
    "dpo-smoothed": DPO(beta=0.5, label_smoothing=0.1),
    "ipo": IPO(),
    "hinge-dpo": HingeDPO(),
    "kto": KTO(undesirable_weight=2.0),
    "simpo": SimPO(beta=2.0),
    "hinge-simpo": HingeSimPO(beta=0.1),
    "tdpo1": TDPO1(),
    "tdpo2": TDPO2(alpha=0.5),
    "cpo": CPO(),
    "cpo-simpo": CPOSimPO(beta=2.0),
    "aligndistil": AlignDistil(r=5.0),
    "aligndistil-vanilla": AlignDistil(r=5.0, reward="vanilla", reduction="token_mean"),
    "aligndistil-constant": AlignDistil(extrapolation="constant", beta=0.07, temperature=2.0),
    "aligndistil-official": AlignDistil(r=5.0, positions="official", tvd="l1"),
    "ppo": PPO(),
    "ppo-token-mean": PPO(kl_estimator="k3", value_clip=None, reduction="token_mean"),
}
