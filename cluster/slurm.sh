#!/bin/bash
# A search on the nodes of a SLURM job: starts Ray on each of them, with a token of its own.
#
#   sbatch cluster/slurm.sh my-space.yaml first
#
# The first argument is the space, the second the run's name. Sent again with the same two, or
# requeued by SLURM, it goes on with the run. Replace what is in capitals.

#SBATCH --job-name=vqtune
#SBATCH --account=YOUR_ACCOUNT
#SBATCH --partition=YOUR_PARTITION
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Ten minutes before the end: the search saves what it has, as after Ctrl-C.
#SBATCH --signal=B:TERM@600

set -euo pipefail

space=$1
name=$2
data=${VQTUNE_DATA:-/shared/YOUR_DATA}
runs=${VQTUNE_RUNS:-/shared/runs} # a folder that all nodes see
# Where vqtune and the packages of requirements.lock are, on the shared file system:
# source /shared/YOUR_VENV/bin/activate

# Others have accounts on these nodes: only who has the token may use this cluster. The nodes get it
# from the environment, where no other user can read it.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
export RAY_USAGE_STATS_ENABLED=0

# This script runs on the first node, which is the head.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head --lines=1)
ip=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
# A port that depends on the job: two jobs may share a node.
address=$ip:$((20000 + SLURM_JOB_ID % 20000))
shares=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block)

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="$ip" --port="${address#*:}" --include-dashboard=false \
    "${shares[@]}" &
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

for _ in $(seq 60); do
    ray health-check --address "$address" 2>/dev/null && break
    sleep 1
done

if ((SLURM_JOB_NUM_NODES > 1)); then
    # Nodes that join while the search runs are used, so nobody waits for them here.
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 --exclude="$head" \
        ray start --address="$address" "${shares[@]}" &
fi

resume=()
if [[ -e $runs/$name/spec.yaml ]]; then
    resume=(--resume)
fi

# In the background, so that SLURM's signal reaches the shell, which passes it on.
vqtune search "$space" --data "$data" --storage "$runs" --name "$name" --address "$address" \
    --gpus-per-trial 0.25 "${resume[@]}" &
search=$!
trap 'kill -TERM $search' TERM
wait $search || wait $search
