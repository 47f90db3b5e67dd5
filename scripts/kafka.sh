#!/usr/bin/env bash
# Runs Kafka's own command-line tools from the jars of the local broker: ./scripts/kafka.sh TOOL [OPTIONS…]
# Promise: the tool's own output and exit status, with --bootstrap-server localhost:9092 where none is given.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${RELANCE_KAFKA_HOME:-$root/.run/kafka/4.3.1}
server=${KAFKA_BOOTSTRAP_SERVERS:-localhost:9092}

declare -A classes=(
  [kafka-topics]=org.apache.kafka.tools.TopicCommand
  [kafka-console-consumer]=org.apache.kafka.tools.consumer.ConsoleConsumer
  [kafka-console-producer]=org.apache.kafka.tools.ConsoleProducer
  [kafka-consumer-groups]=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
  [kafka-configs]=org.apache.kafka.tools.ConfigCommand
  [kafka-get-offsets]=org.apache.kafka.tools.GetOffsetShell
  [kafka-delete-records]=org.apache.kafka.tools.DeleteRecordsCommand
  [kafka-groups]=org.apache.kafka.tools.GroupsCommand
  [kafka-transactions]=org.apache.kafka.tools.TransactionsCommand
)

tool=${1:-}
tool=${tool%.sh}
if [[ -z $tool || $tool == -h || $tool == --help || -z ${classes[$tool]:-} ]]; then
  names=$(printf '%s\n' "${!classes[@]}" | sort | paste -sd' ')
  if [[ $tool == -h || $tool == --help ]]; then
    echo "usage: ./scripts/kafka.sh TOOL [OPTIONS…]; the tools are: $names"
    exit 0
  fi
  echo "kafka.sh: ${tool:+no tool $tool; }usage: ./scripts/kafka.sh TOOL [OPTIONS…]; the tools are: $names" >&2
  exit 2
fi
shift

if [[ ! -d $home/libs ]]; then
  echo "kafka.sh: Kafka's jars are not in $home; ./scripts/up.sh or 'relance broker start' fetches them" >&2
  exit 1
fi
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
if ! command -v "$java" >/dev/null; then
  echo "kafka.sh: needs Java 17 or later, and there is none in ${JAVA_HOME:-the PATH}" >&2
  exit 1
fi

given=no
for argument in "$@"; do
  case $argument in
    --bootstrap-server | --bootstrap-server=* | --bootstrap-controller | --bootstrap-controller=*) given=yes ;;
  esac
done
[[ $given == yes ]] || set -- "$@" --bootstrap-server "$server"

# Small heap, quick start; the log goes nowhere unless it is an error, so that the output is the tool's alone.
exec "$java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
  -Dorg.apache.logging.log4j.level=ERROR -Dlog4j2.level=ERROR -Dorg.apache.logging.log4j.simplelog.StatusLogger.level=OFF \
  -cp "$home/libs/*" "${classes[$tool]}" "$@"
