#!/usr/bin/env bash
# Installs SLURM from Debian's packages and starts it with this machine as its only node. As root, in a container or on
# a machine that is for tests only: it writes /etc/slurm/slurm.conf.
#
#     bash tests/slurm/start.sh && .venv/bin/python -m pytest -m slow tests/slurm
set -euo pipefail

if ! { command -v slurmctld && command -v slurmd && command -v munged; } > /dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends slurm-wlm munge
fi

host=$(hostname -s)
mkdir -p /etc/slurm /var/lib/slurm_test/{controller,node} /var/log/slurm_test /run/munge
chown munge:munge /run/munge
# No cgroups and no accounting database, which containers do not have. cred_expire: a requeued job starts again after
# as many seconds (120 by default).
cat > /etc/slurm/slurm.conf << EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=30
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation=/var/lib/slurm_test/controller
SlurmdSpoolDir=/var/lib/slurm_test/node
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm_test/slurmctld.log
SlurmdLogFile=/var/log/slurm_test/slurmd.log
MailProg=/bin/true
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF

pgrep -x munged > /dev/null || runuser -u munge -- munged
pgrep -x slurmctld > /dev/null || slurmctld
pgrep -x slurmd > /dev/null || slurmd
for _ in $(seq 60); do
    if sinfo --noheader --format=%T 2> /dev/null | grep -q -E 'idle|mixed|allocated'; then
        sinfo
        exit 0
    fi
    sleep 1
done
echo "the node is not ready after 60 s; see /var/log/slurm_test" >&2
sinfo || true
exit 1
