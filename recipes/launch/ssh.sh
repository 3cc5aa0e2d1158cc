#!/bin/bash
# The same on machines without a scheduler, from a folder that all of them see:
#     HOSTS="node01 node02" recipes/launch/ssh.sh recipes/dpo.yaml --output runs/dpo
# The first host is the one that writes; the others reach it at the port. Ctrl-C lets all save.
hosts=($HOSTS)
address=${hosts[0]}:${PORT:-29500}
command="cd $(printf %q "$PWD") && exec alignzoo run $(printf '%q ' "$@")"
command+="--processes ${PROCESSES:-8} --machines ${#hosts[@]} --main-address $address"

for rank in $(seq 1 $((${#hosts[@]} - 1))); do
    ssh "${hosts[$rank]}" "$command --machine-rank $rank" < /dev/null &
done
ssh -t "${hosts[0]}" "$command --machine-rank 0"
status=$?
wait
exit $status
