#!/bin/bash
# Two machines with eight GPUs each, from a folder that both see:
#     sbatch recipes/launch/slurm.sh recipes/dpo.yaml --output runs/dpo
# Two minutes before the time is up all workers save and stop; the same command goes on from there.
#SBATCH --job-name=alignzoo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
main=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MAIN_ADDRESS=$main:${PORT:-29500} PROCESSES=${PROCESSES:-8}

# One launching process per machine; it starts and watches the workers of its own.
exec srun bash -c 'exec alignzoo run "$@" \
    --processes "$PROCESSES" --machines "$SLURM_NNODES" --machine-rank "$SLURM_NODEID" \
    --main-address "$MAIN_ADDRESS"' alignzoo "$@"
