#!/usr/bin/env bash
# Runs one of Kafka's own command line tools from the jars of the local broker.
# Promise: it prints what the tool prints and no logging of its own, and works from any folder.
#
#   ./scripts/kafka.sh kafka-topics --list
#   ./scripts/kafka.sh kafka-console-consumer --topic orders.DLT --from-beginning --max-messages 1
#
# --bootstrap-server is $RELANCE_BOOTSTRAP_SERVERS, $KAFKA_BOOTSTRAP_SERVERS or localhost:9092 where you don't give
# it. RELANCE_KAFKA_HOME says where the jars are (default: .run/kafka/4.3.1 of this checkout; `relance broker start`
# puts them there).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kafka_version=4.3.1

# Tool, its class, and whether it takes --bootstrap-server (three of them only before their sub-command).
tools="
kafka-acls                  AclCommand                               yes
kafka-broker-api-versions   BrokerApiVersionsCommand                 yes
kafka-client-metrics        ClientMetricsCommand                     yes
kafka-cluster               ClusterTool                              no
kafka-configs               kafka.admin.ConfigCommand                yes
kafka-console-consumer      consumer.ConsoleConsumer                 yes
kafka-console-producer      ConsoleProducer                          yes
kafka-console-share-consumer consumer.ConsoleShareConsumer           yes
kafka-consumer-groups       consumer.group.ConsumerGroupCommand      yes
kafka-consumer-perf-test    ConsumerPerformance                      yes
kafka-delete-records        DeleteRecordsCommand                     yes
kafka-dump-log              DumpLogSegments                          no
kafka-features              FeatureCommand                           first
kafka-get-offsets           GetOffsetShell                           yes
kafka-groups                GroupsCommand                            yes
kafka-leader-election       LeaderElectionCommand                    yes
kafka-log-dirs              LogDirsCommand                           yes
kafka-metadata-quorum       MetadataQuorumCommand                    first
kafka-producer-perf-test    ProducerPerformance                      no
kafka-reassign-partitions   reassign.ReassignPartitionsCommand       yes
kafka-share-groups          consumer.group.ShareGroupCommand         yes
kafka-storage               kafka.tools.StorageTool                  no
kafka-topics                TopicCommand                             yes
kafka-transactions          TransactionsCommand                      first
"

fail() { # STATUS TEXT
  printf 'kafka.sh: %s\n' "$2" >&2
  exit "$1"
}

tool=${1:-}
tool=${tool%.sh} # as Kafka's own distribution calls them
shift || true
known=$(awk 'NF { printf "%s%s", sep, $1; sep = ", " }' <<<"$tools")
if [[ $tool == -h || $tool == --help ]]; then
  printf 'usage: ./scripts/kafka.sh TOOL [OPTIONS…]\nthe tools are: %s\n' "$known"
  exit 0
fi
read -r class bootstrap < <(awk -v tool="$tool" 'NF && $1 == tool { print $2, $3 }' <<<"$tools") ||
  fail 2 "${tool:+there is no $tool; }the tools are: $known"
case $class in
kafka.*) ;;
*) class=org.apache.kafka.tools.$class ;;
esac

address=''
if [[ $bootstrap != no ]]; then
  arguments=("$@")
  for ((i = 0; i < $#; i++)); do
    case ${arguments[i]} in
    --bootstrap-server) address=${arguments[i + 1]:-none} ;;
    --bootstrap-server=*) address=${arguments[i]#*=} ;;
    --bootstrap-controller | --bootstrap-controller=* | --help | --version) address=none ;;
    esac
  done
  if [[ -z $address ]]; then
    address=${RELANCE_BOOTSTRAP_SERVERS:-${KAFKA_BOOTSTRAP_SERVERS:-localhost:9092}}
    if [[ $bootstrap == first ]]; then
      set -- --bootstrap-server "$address" "$@"
    else
      set -- "$@" --bootstrap-server "$address"
    fi
  fi
fi

home=${RELANCE_KAFKA_HOME:-$root/.run/kafka/$kafka_version}
java=java
[[ -z ${JAVA_HOME:-} ]] || java=$JAVA_HOME/bin/java

if ! command -v "$java" >/dev/null || ! compgen -G "$home/libs/kafka-tools-*.jar" >/dev/null; then
  # Without Java the local broker is a container, and Kafka's tools are in it.
  container=$(sed -n 's/^ *"container": "\(..*\)".*/\1/p' "$root/.run/kafka/cluster.json" 2>/dev/null || true)
  if [[ -n $container ]]; then
    tty=()
    [[ ! -t 0 ]] || tty=(--tty)
    exec docker exec --interactive ${tty[@]+"${tty[@]}"} "$container" "/opt/kafka/bin/$tool.sh" "$@"
  fi
  command -v "$java" >/dev/null || fail 1 "there is no java (17 or later); install it (apt: openjdk-17-jre-headless)"
  relance=$root/.venv/bin/relance
  [[ -x $relance ]] || fail 1 "Kafka's jars are not in $home/libs; fetch them with: relance broker fetch"
  "$relance" broker fetch >&2 || exit 1
fi

# Some tools would wait for a broker that is not there, without a word.
first=${address%%,*}
if [[ ${first%:*} =~ ^(localhost|127\.0\.0\.1)$ ]] && ! (: <>"/dev/tcp/${first%:*}/${first##*:}") 2>/dev/null; then
  fail 1 "nothing answers at $first; start a broker with: relance broker start"
fi

# A small heap, one compiler and the serial collector: a tool runs for a second, and start-up is most of it.
exec "$java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Djava.awt.headless=true \
  -Dlog4j2.configurationFile="$root/src/relance/broker/tools-log4j2.properties" -cp "$home/libs/*" "$class" "$@"
