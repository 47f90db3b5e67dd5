import logging
import re
from collections.abc import Mapping

import pytest

from maps import our_map, varint
from relance.engine.offset_map import decode_map, home_text, mark_text, read_head
from relance.kafka.cluster import Committed, Identity, Watermarks
from relance.kafka.starts import Feed, Seen, Start, Telling, Where, needs_others, starts_of
from relance.record import TopicPartition

TP = TopicPartition("orders", 3)
FEED = Feed("source", ("orders",), "group")
MAP = "ZQAAAAIAAAAD"  # Parallel Consumer's run lengths: two unfinished, three finished
FINISHED = our_map("R", b"".join(map(varint, (100, 3, 0, 1, 2))))  # 101 and 102, above the committed 100


def ours(topic_id: str = "T0", cluster: str = "here", began: int | None = None, mark: str = "o") -> str:
    return FINISHED.replace("r1:T0:o:", f"r1:{topic_id}:{mark}{home_text(cluster, began)}:")


def seen(
    topic_id: str = "T0", partitions: int = 4, *, first: Identity | None = None, cluster: str = "here"
) -> Seen:
    return Seen(
        cluster, {"orders": Identity(topic_id, partitions)}, {} if first is None else {"orders": first}
    )


def start(
    texts: Mapping[int, str | None],
    partition: int = 3,
    *,
    where: Where = "earliest",
    now: Seen | None = None,
    log: tuple[int, int] = (10, 1000),
    committed: int = 100,
    telling: Telling | None = None,
) -> Start:
    """Where `partition` begins if the others have committed 100 with these texts."""
    tp = TopicPartition("orders", partition)
    known = {TopicPartition("orders", p): Committed(committed, text or "") for p, text in texts.items()}
    feed = Feed("source", ("orders",), "group", where)
    [found] = starts_of([tp], known, {tp: Watermarks(*log)}, now or seen(), feed, telling or Telling())
    return found


def told(text: str, *, end: int = 1000, committed: int = 100) -> tuple[str, list[tuple[int, str]]]:
    telling = Telling()
    found = start({3: text}, log=(0, end), committed=committed, telling=telling)
    return found.metadata, telling.lines()


# -- what another program left ---------------------------------------------------------------------


@pytest.mark.parametrize("end", [105, 1000])
def test_a_map_of_parallel_consumer_within_the_log_is_kept_and_told(end: int) -> None:
    metadata, [(level, line)] = told(MAP, end=end)
    assert metadata == MAP
    assert (level, line) == (
        logging.INFO,
        "orders-3: Parallel Consumer left 2 offsets unfinished in 100..104; the others there are skipped",
    )


def test_a_map_of_parallel_consumer_that_reaches_beyond_the_log_is_of_another_log() -> None:
    metadata, [(_, line)] = told(MAP, end=104)
    assert metadata == ""
    assert "reaches to offset 105 and the log to 104" in line


@pytest.mark.parametrize(
    "text", ["host-7", "r1:xx", "r1:", "r1::", "r1:T0:o:", "r1:T9:o:-\n", "r1:T9:x:-", "r2:T9:o:-"]
)
def test_a_text_that_is_not_ours_is_no_map_and_names_no_topic_even_if_it_begins_like_ours(text: str) -> None:
    metadata, [(level, line)] = told(text)
    assert metadata == ""
    assert level == logging.WARNING
    assert "beside the committed offset of orders-3 is no map that relance reads" in line
    assert start({3: text}).offset == 100


@pytest.mark.parametrize("text", ["", "bgAA", "r1:T0:-", "r1:T0:Rdamaged", "r1:T0:o:Rdamaged", ours()])
def test_ours_and_a_map_of_nothing_are_kept_without_a_word(text: str) -> None:
    assert told(text) == (text, [])


def test_a_commit_outside_the_log_takes_its_map_along() -> None:
    assert start({3: MAP}, log=(101, 1000)).metadata == ""


def test_what_many_partitions_have_in_common_is_told_in_one_line() -> None:
    tps = [TopicPartition("orders", p) for p in range(600)]
    telling = Telling()
    starts_of(
        tps,
        dict.fromkeys(tps, Committed(100, "host-7")),
        dict.fromkeys(tps, Watermarks(0, 1000)),
        seen(partitions=600),
        FEED,
        telling,
    )
    [(_, line)] = telling.lines()
    assert "of orders-0, orders-1, orders-2 and 597 more is no map" in line


# -- which log and which cluster a commit is of ----------------------------------------------------


@pytest.mark.parametrize("where", ["earliest", "latest", "fail"])
def test_a_commit_of_another_cluster_is_believed_without_its_map_and_mark(where: Where) -> None:
    telling = Telling()
    text = ours("T9", "there", 4, "o2.103.101~101x1")
    found = start({3: text}, where=where, telling=telling)
    assert (found.offset, found.metadata, found.problem) == (100, "", None)
    assert mark_text(found.metadata, "T0") == ""
    [(level, line)] = telling.lines()
    assert level == logging.WARNING
    assert "the offset of orders-3 was committed on another cluster (there)" in line


def test_the_name_of_another_cluster_forges_no_line_of_the_log() -> None:
    telling = Telling()
    found = start({3: ours("T0", "{}\n2026 CRITICAL all is lost\x1b[2J" + "x" * 3000)}, telling=telling)
    assert (found.offset, found.metadata) == (100, "")
    [(_, line)] = telling.lines()
    assert line.isprintable()
    assert line.count("orders-3") == 1
    assert len(line) < 500


@pytest.mark.parametrize("where", ["earliest", "latest", "fail"])
@pytest.mark.parametrize("text", [ours("T9", "here", 4), ours("T9", "", None), "r1:T9:o:-", "r1:T9:-"])
def test_a_topic_that_was_made_again_is_read_from_its_beginning(where: Where, text: str) -> None:
    telling = Telling()
    found = start({3: text}, where=where, telling=telling)
    assert (found.offset, found.metadata, found.problem) == (10, "", None)
    assert "made again" in telling.lines()[0][1]


@pytest.mark.parametrize("text", [ours(cluster=""), ours(), "r1::o:-", FINISHED])
@pytest.mark.parametrize("cluster", ["here", ""])
def test_a_commit_is_believed_with_its_map_where_an_id_is_not_known(text: str, cluster: str) -> None:
    found = start({3: text}, now=seen(cluster=cluster))
    assert (found.offset, found.metadata) == (100, text)


def test_a_commit_outside_the_log_of_another_cluster_is_out_of_range() -> None:
    problem = start({3: ours("T9", "there")}, log=(0, 50)).problem
    assert problem is not None
    assert "committed offset 100 is outside the log 0..50" in problem


def test_what_commits_say_is_read_back_with_any_id_of_a_cluster() -> None:
    for cluster in ("", "m04-relance-cluster-AA", "a:b@c+d e%", "ü"):
        for began in (None, 0, 12):
            head = read_head(f"r1:T0:o2.812.307~307x1{home_text(cluster, began)}:-")
            assert head == ("T0", "o2.812.307~307x1", cluster, began)


def test_an_older_version_reads_topic_and_map_of_a_new_text_and_no_mark() -> None:
    """As it did it: four parts by colons; the mark matched as a whole."""
    text = ours("T0", "a:b", 3)
    version, topic_id, mark, rest = text.split(":", 3)
    assert (version, topic_id) == ("r1", "T0")
    assert re.fullmatch(r"[oc](?:[12]\.\d+(?:\.\d+)?)?(?:~\d+x\d+)*", mark) is None
    assert rest == FINISHED.rsplit(":", 1)[1]
    assert decode_map(text, "T0", 100) == decode_map(FINISHED, "T0", 100)


# -- partitions without a commit -------------------------------------------------------------------


def new(texts: Mapping[int, str | None], where: Where = "latest", now: Seen | None = None) -> tuple[str, str]:
    """Where partition 3 begins, which has no commit; and what its commits say of the beginning."""
    found = start(texts, where=where, now=now)
    head = read_head(f"r1:T0:o{found.home}:-")
    assert head is not None
    assert head.cluster == "here"
    places = {10: "beginning", 1000: "end"}
    return "stops" if found.problem else places[found.offset], str(head.began)


@pytest.mark.parametrize(
    ("where", "place"), [("earliest", "beginning"), ("latest", "end"), ("fail", "stops")]
)
def test_a_group_that_begins_now_begins_where_start_says(where: Where, place: str) -> None:
    assert new({}, where) == (place, "4")


@pytest.mark.parametrize(
    ("where", "place"), [("earliest", "beginning"), ("latest", "end"), ("fail", "stops")]
)
@pytest.mark.parametrize("others", [[0], [0, 1, 2]])
def test_a_partition_that_was_there_when_the_group_began_begins_where_start_says(
    where: Where, place: str, others: list[int]
) -> None:
    assert new(dict.fromkeys(others, ours(began=4)), where) == (place, "4")


@pytest.mark.parametrize("where", ["earliest", "latest", "fail"])
@pytest.mark.parametrize("others", [[0], [0, 1, 2]])
@pytest.mark.parametrize("began", [1, 3])
def test_a_partition_that_has_appeared_since_begins_at_its_beginning(
    where: Where, others: list[int], began: int
) -> None:
    assert new(dict.fromkeys(others, ours(began=began)), where) == ("beginning", str(began))


@pytest.mark.parametrize("text", ["r1:T0:o:-", "host-7", None])
def test_where_nobody_knows_how_the_group_began_what_lies_above_all_commits_is_new_but_for_fail(
    text: str | None,
) -> None:
    assert new({0: text, 2: text}) == ("beginning", "3")
    assert new({0: text, 2: text}, "fail") == ("stops", "4")
    assert start({0: text, 2: text}, 1, where="latest").offset == 1000


def test_of_two_that_began_together_and_counted_differently_the_smaller_number_holds() -> None:
    assert new({0: ours(began=3), 1: ours(began=4)}) == ("beginning", "3")


@pytest.mark.parametrize("where", ["earliest", "latest", "fail"])
@pytest.mark.parametrize("text", [ours("T9", began=4), "r1:T9:o:-", ours("T9", "there", 4)])
def test_a_group_that_is_older_than_the_log_skips_nothing_of_it(where: Where, text: str) -> None:
    assert new({0: text}, where) == ("beginning", "0")
    assert new({0: text, 1: ours(began=0)}, where) == ("beginning", "0"), "of which one has begun already"


@pytest.mark.parametrize("where", ["earliest", "latest", "fail"])
@pytest.mark.parametrize("texts", [{}, {0: None}, {0: ours(began=4)}])
def test_what_has_appeared_since_this_process_began_is_new_whatever_the_commits_say(
    where: Where, texts: dict[int, str | None]
) -> None:
    assert new(texts, where, seen(first=Identity("T0", 3))) == (
        "beginning",
        "1" if texts == {0: None} and where != "fail" else "3",
    )


@pytest.mark.parametrize("where", ["earliest", "latest", "fail"])
def test_a_topic_made_again_since_this_process_began_is_read_from_its_beginning(where: Where) -> None:
    assert new({}, where, seen(first=Identity("T9", 4))) == ("beginning", "0")


def test_ids_that_are_not_known_make_no_topic_another_one() -> None:
    assert new({}, "latest", seen("", first=Identity("T9", 4))) == ("end", "4")
    assert new({}, "latest", seen(first=Identity("", 4))) == ("end", "4")


def test_a_partition_that_the_brokers_do_not_know_of_yet_counts_as_there() -> None:
    assert new({}, "latest", seen(partitions=2)) == ("end", "4")


def test_other_partitions_are_looked_at_unless_ones_own_say_how_the_group_began() -> None:
    others = {TopicPartition("orders", p) for p in (0, 1, 2)}
    assert needs_others([TP], {TP: Committed(-1, "")}, seen()) == others
    assert needs_others([TP], {TP: Committed(7, "r1:T0:o:-")}, seen()) == others
    assert needs_others([TP], {TP: Committed(7, ours("T9", began=4))}, seen()) == others
    assert needs_others([TP], {TP: Committed(7, ours(began=4))}, seen()) == set()


@pytest.mark.parametrize("where", ["earliest", "latest", "fail"])
@pytest.mark.parametrize("log", [(10, 1000), (10, 10)])
def test_only_where_reading_begins_at_the_end_the_first_commit_is_waited_for(
    where: Where, log: tuple[int, int]
) -> None:
    assert start({}, where=where, log=log).unbegun == (where == "latest")
    assert not start({3: ours()}, where=where).unbegun
    assert not start({0: ours(began=3)}, where=where).unbegun


def test_what_is_read_from_its_beginning_or_end_is_told() -> None:
    telling = Telling()
    start({0: ours(began=3)}, where="latest", telling=telling)
    start({}, where="latest", telling=telling)
    start({0: None}, where="latest", telling=telling)
    start({0: ours("T9")}, where="latest", telling=telling)
    start({}, where="earliest", telling=telling)
    assert [(level, line.partition("orders-3")[2].partition(":")[0]) for level, line in telling.lines()] == [
        (logging.INFO, " has appeared since the group began to read the topic"),
        (logging.INFO, " has no committed offset"),
        (logging.WARNING, " has no committed offset, and stands above those that have"),
        (logging.INFO, " has no committed offset, and the group is older than its log"),
    ]
