# shellcheck shell=bash
# What the scripts of this folder share: Ray on the whole nodes of one allocation, and the job on its head.
#
#     run_on_nodes jobs/scan_survey.py ARGUMENTS ...
#
# Where Slurm takes the nodes away (USR1 comes two minutes before: --signal=B:USR1@120), the job goes back into the queue and
# the next one resumes.
set -euo pipefail

project="${LENSPIPE_PROJECT:-$SLURM_SUBMIT_DIR}" # a checkout with its environment in .venv, on a disk that all nodes see
# shellcheck disable=SC1091
source "$project/.venv/bin/activate"
cd "$project"

requeue() {
    echo "$(date +%T) Slurm takes the nodes back: into the queue again, to be resumed" >&2
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}

run_on_nodes() {
    local nodes address
    mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST") # not | head: it may end before scontrol has, an error
    address="$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname -I | awk '{print $1}'):6379"
    export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 RAY_AUTH_MODE=token RAY_idle_worker_killing_time_threshold_ms=600000
    # all nodes share the home folder, so one token does
    [[ -s ~/.ray/auth_token ]] || ray get-auth-token --generate >/dev/null
    chmod 600 ~/.ray/auth_token
    trap requeue USR1
    # RAY_ADDRESS is set for the job itself: without it, ray.init may start a second, local Ray beside the cluster
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
        ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
        --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" -- \
        env RAY_ADDRESS="$address" python -u "$@" &
    wait $! # in the background, so that the signal is heard at once
}
