# A Slurm of one node, of the test's own: daemons, state, sockets and ports in a directory that goes with it.
# Sourced; cluster_start DIRECTORY, cluster_stop. Needs root, slurm-wlm and munge.
cluster_start() {
  local dir=$1 host cpus memory
  host=$(hostname -s) cpus=$(nproc) memory=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
  export SLURM_CONF=$dir/slurm.conf
  mkdir -p "$dir"/{state,spool}
  chmod 755 "$dir"
  head -c 128 /dev/urandom > "$dir/munge.key"; chmod 600 "$dir/munge.key"
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
  # ports that nobody else has
  local base=$((20000 + $$ % 20000))
  cat > "$SLURM_CONF" <<CONF
ClusterName=qvltest
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=$base
SlurmdPort=$((base + 1))
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=pmix
SwitchType=switch/none
ReturnToService=2
KillWait=20
MinJobAge=600
OverTimeLimit=0
SlurmctldTimeout=120
SchedulerParameters=sched_interval=2,sched_min_interval=0
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 Gres=gpu:2 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
CONF
  touch "$dir/gpu0" "$dir/gpu1" # of cardboard
  echo "NodeName=$host Name=gpu File=$dir/gpu[0-1]" > "$dir/gres.conf"
  CLUSTER_DIR=$dir
  slurmctld -f "$SLURM_CONF" && slurmd -f "$SLURM_CONF" || return 1
  for _ in $(seq 100); do
    sinfo -h -o %t 2> /dev/null | grep -q '^idle' && return 0
    sleep 0.2
  done
  sinfo >&2; tail -n 20 "$dir"/slurm*.log >&2
  return 1
}

cluster_stop() {
  local pid
  [ -n "${CLUSTER_DIR:-}" ] || return 0
  scancel --user root > /dev/null 2>&1 || true
  for name in slurmd slurmctld munged; do
    pid=$(cat "$CLUSTER_DIR/$name.pid" 2> /dev/null) || continue
    kill "$pid" 2> /dev/null || continue
    for _ in $(seq 50); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2> /dev/null || true
  done
}
