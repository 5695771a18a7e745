#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "spool/recover.h"
#include "spool/spool_int.h"
#include "spool/world.h"

#define SEGMENT (128U * 1024U)
#define SMALL   (32U * 1024U) /* for what is copied thousands of times */

static const char first_segment[] = "000000000001.seg";

static void start_with(struct world *w, uint64_t segment_size)
{
    world_init(w, 5, segment_size);
    assert_int_equal(world_open(w), 0);
    spool_shard_up(w->sp, 0, false);
    world_settle(w);
}

static void start(struct world *w)
{
    start_with(w, SEGMENT);
}

static void restart_with(struct world *w, struct memdisk *mem)
{
    w->mem = mem;
    w->disk = memdisk_calls(mem);
    assert_int_equal(world_open(w), 0);
    spool_shard_up(w->sp, 0, false);
}

static void stop(struct world *w)
{
    world_drop(w);
    memdisk_power_on(w->mem, MEMDISK_LOSE_NONE, 1);
}

/* Kept by the world: its own disk, while copies of it are damaged and recovered one after the other. */
static size_t count_after(struct world *w, struct memdisk *damaged)
{
    struct memdisk *own = w->mem;
    struct spool_disk own_calls = w->disk;
    restart_with(w, damaged);
    world_settle(w);
    size_t count = index_count(spool_index(w->sp));
    unsigned broken = w->broken;
    w->broken = 0;
    for (size_t i = 0; i < w->ledger_count; i++) { /* only torn octets are of interest: fates as they were */
        w->ledger[i].fate = w->ledger[i].fate == WORLD_ACKED ? WORLD_REFUSED : w->ledger[i].fate;
    }
    world_check(w);
    if (w->broken > 0) {
        fail_msg("%s", w->why);
    }
    w->broken = broken;
    world_drop(w);
    memdisk_free(&damaged);
    w->mem = own;
    w->disk = own_calls;
    return count;
}

static uint64_t batch_end(struct world *w)
{
    struct spool_figures f;
    spool_figures(w->sp, &f);
    return f.log.offset;
}

/* A batch of five, cut at every 512th octet: those whose record and octets stand are whole, none is torn. */
static void test_last_batch_torn_at_every_unit(void **state)
{
    (void)state;
    struct world w;
    start(&w);
    world_send(&w, 700, false);
    world_settle(&w);
    uint64_t from = batch_end(&w);
    for (int i = 0; i < 5; i++) {
        world_send(&w, 3000, false);
    }
    world_settle(&w);
    uint64_t end = batch_end(&w);
    stop(&w);
    for (uint64_t cut = from; cut <= end; cut += 512) {
        size_t size;
        struct memdisk *damaged = memdisk_copy(w.mem);
        uint8_t *octets = memdisk_octets(damaged, first_segment, &size);
        memset(octets + cut, 0, end - cut);
        size_t count = count_after(&w, damaged);
        assert_in_range(count, 1, 6);
        assert_true(cut < end || count == 6);
    }
    world_fini(&w);
}

/* Each octet of a small spool flipped in turn: only the message it belongs to may suffer. */
static void test_every_octet_flipped(void **state)
{
    (void)state;
    struct world w;
    start_with(&w, SMALL);
    for (int i = 0; i < 3; i++) {
        world_send(&w, 300, false);
    }
    world_settle(&w);
    world_send(&w, 200, false);
    world_send(&w, 100, false);
    world_settle(&w);
    uint64_t end = batch_end(&w);
    stop(&w);
    for (uint64_t at = 0; at < end; at++) {
        size_t size;
        if (memdisk_octets(w.mem, first_segment, &size)[at] == 0 && at % 16 != 0) { /* padding, mostly */
            continue;
        }
        struct memdisk *damaged = memdisk_copy(w.mem);
        memdisk_octets(damaged, first_segment, &size)[at] ^= 0x20;
        struct memdisk *own = w.mem;
        struct spool_disk calls = w.disk;
        restart_with(&w, damaged);
        world_settle(&w);
        size_t count = index_count(spool_index(w.sp));
        if (count < 4) {
            print_error("octet %llu\n", (unsigned long long)at);
        }
        assert_in_range(count, 4, 5);
        spool_shard_up(w.sp, 0, true);
        world_deliver_all(&w); /* everything that is there goes out whole, or is told to be damaged */
        if (w.broken > 0 || index_count(spool_index(w.sp)) > 0) {
            fail_msg("octet %llu: %s", (unsigned long long)at, w.why);
        }
        for (size_t i = 0; i < w.ledger_count; i++) {
            w.ledger[i].fate = WORLD_ACKED;
        }
        world_drop(&w);
        memdisk_free(&damaged);
        w.mem = own;
        w.disk = calls;
    }
    world_fini(&w);
}

static void test_truncated_at_every_block(void **state)
{
    (void)state;
    struct world w;
    start(&w);
    for (int i = 0; i < 10; i++) {
        world_send(&w, 2000, false);
        world_settle(&w);
    }
    uint64_t end = batch_end(&w);
    stop(&w);
    for (uint64_t cut = 0; cut <= end; cut += 1024) {
        struct memdisk *damaged = memdisk_copy(w.mem);
        assert_int_equal(memdisk_truncate(damaged, first_segment, cut), 0);
        size_t count = count_after(&w, damaged);
        assert_true(count <= 10 && count + 1 >= (cut > 8192 ? (cut - 4096) / 4096 : 0));
    }
    world_fini(&w);
}

/* A sender writes octets that look like a batch of the log: they are never taken for one. */
static void test_octets_like_a_batch(void **state)
{
    (void)state;
    struct world w;
    start(&w);
    static uint8_t forged[40000];
    for (size_t at = 0; at + BATCH_HEADER_SIZE < sizeof(forged); at += 512) {
        struct batch_header h = {.segment = 1, .life = at, .seq = 1000 + at, .tail = 1};
        batch_seal(&h, forged + at);
    }
    struct envelope_recipient to = {.address = SPAN_LIT("a@b.example")};
    struct envelope e = {.sender = SPAN_LIT("s@c.example"), .recipients_count = 1, .recipients = &to};
    w.ledger_count = 0;
    spool_put(w.sp, 1, 77, &(struct spool_put){e, {forged, sizeof(forged)}});
    world_settle(&w);
    w.broken = 0; /* an answer that the world did not ask for */
    stop(&w);
    size_t size;
    uint8_t *octets = memdisk_octets(w.mem, first_segment, &size);
    memset(octets + SPOOL_BLOCK, 0, BATCH_HEADER_SIZE); /* its own header is gone: a scan begins */
    assert_int_equal(world_open(&w), 0);
    world_settle(&w);
    assert_int_equal(index_count(spool_index(w.sp)), 0);
    world_send(&w, 100, false);
    world_settle(&w);
    assert_int_equal(index_count(spool_index(w.sp)), 1);
    world_fini(&w);
}

/* A last batch whose header is right but for what it claims: recovery comes to an end, and what is there is there. */
static void test_a_batch_that_claims_too_much(void **state)
{
    (void)state;
    struct world w;
    struct batch_header h;
    size_t size;
    start(&w);
    world_send(&w, 2000, false);
    world_settle(&w);
    stop(&w);
    uint8_t *head = memdisk_octets(w.mem, first_segment, &size) + SPOOL_BLOCK;
    assert_int_equal(batch_header_peek((struct span){head, size - SPOOL_BLOCK}, &h), 0);
    h.octets_length = UINT64_C(1) << 56;
    batch_seal(&h, head);
    assert_int_equal(world_open(&w), 0);
    world_settle(&w);
    assert_int_equal(index_count(spool_index(w.sp)), 1);
    world_send(&w, 100, false);
    world_settle(&w);
    assert_int_equal(index_count(spool_index(w.sp)), 2);
    world_fini(&w);
}

static void message_text(const struct message *m, struct buf *out, struct record_scratch *scratch)
{
    struct record_message r;
    struct wire_writer w = {.out = out};
    index_record(m, &r, scratch);
    r.place.kind = PLACE_ABSOLUTE;
    assert_int_equal(record_message_encode(&w, &r), 0);
}

/* All that is known, in the order of ids. */
static void index_text(struct index *ix, struct buf *out)
{
    static struct record_scratch scratch;
    buf_init(out, 1U << 24);
    uint64_t after = 0;
    for (;;) {
        const struct message *least = NULL;
        for (const struct message *m = index_first(ix); m != NULL; m = m->next) {
            if (m->id > after && (least == NULL || m->id < least->id)) {
                least = m;
            }
        }
        if (least == NULL) {
            return;
        }
        message_text(least, out, &scratch);
        after = least->id;
    }
}

static struct index *index_recovered(struct world *w, bool no_snapshot, bool *ret_used)
{
    const struct index_config config = {.shards = 1, .schedule = schedule_config_default(), .seed = 8};
    const struct recover_options options = {.read_only = true, .no_snapshot = no_snapshot};
    struct index *ix = index_new(&config);
    struct recovery rec;
    assert_int_equal(recover_run(&w->disk, ix, &options, &rec), 0);
    *ret_used = rec.from_snapshot;
    free(rec.log.segments);
    recovery_fini(&rec);
    return ix;
}

/* A snapshot taken while life went on, and the log after it, say the same as the log alone. */
static void test_snapshot_and_replay_agree(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct world w;
        world_init(&w, seed, SEGMENT);
        assert_int_equal(world_open(&w), 0);
        w.puts_weight = 9;
        for (int i = 0; i < 150; i++) {
            world_step(&w);
        }
        world_settle(&w);
        struct spool_figures f;
        spool_figures(w.sp, &f);
        struct worker *house = worker_new(false, NULL, NULL);
        struct snapshot_header header = {.segment = f.log.head,
                                         .offset = f.log.offset,
                                         .batch = f.log.batch,
                                         .tail = f.log.tail,
                                         .spool_ms = f.now_ms};
        struct snapshot *s = snapshot_start(&w.disk, house, spool_index(w.sp), &header);
        enum snapshot_phase phase;
        while ((phase = snapshot_step(s)) != SNAPSHOT_WALKED) {
            assert_int_not_equal(phase, SNAPSHOT_FAILED);
            world_step(&w);
            (void)worker_collect(house);
        }
        world_settle(&w);
        snapshot_commit(s);
        (void)worker_collect(house);
        assert_int_equal(snapshot_step(s), SNAPSHOT_DONE);
        snapshot_free(&s);
        worker_free(&house);
        for (int i = 0; i < 60; i++) {
            world_step(&w);
        }
        world_settle(&w);
        stop(&w);
        bool used;
        struct buf with, without;
        struct index *a = index_recovered(&w, false, &used);
        assert_true(used);
        struct index *b = index_recovered(&w, true, &used);
        assert_false(used);
        index_text(a, &with);
        index_text(b, &without);
        assert_int_equal(index_count(a), index_count(b));
        assert_int_equal(with.len, without.len);
        assert_memory_equal(with.data, without.data, with.len);
        buf_fini(&with);
        buf_fini(&without);
        index_free(&a);
        index_free(&b);
        /* A damaged snapshot is not used, and nothing is missing. */
        size_t size;
        uint8_t *snap = memdisk_octets(w.mem, "index.snap", &size);
        snap[world_random(&w) % size] ^= 1;
        assert_int_equal(world_open(&w), 0);
        world_check(&w);
        assert_int_equal(w.broken, 0);
        world_fini(&w);
    }
}

/* Long-lived mail is moved on from mostly dead segments: the log stays short, nothing is lost. */
static void test_long_lived_mail_is_moved_on(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3, SEGMENT);
    assert_int_equal(world_open(&w), 0);
    for (int round = 0; round < 40; round++) {
        spool_shard_up(w.sp, 0, false);
        w.jobs_count = 0;
        for (int i = 0; i < 10; i++) {
            world_send(&w, 5000, i == 0 && round % 8 == 0);
        }
        world_settle(&w);
        (void)spool_hold(w.sp, w.ledger[(size_t)round * 10].id, SPAN_LIT("to stay"));
        spool_shard_up(w.sp, 0, true);
        w.puts_weight = 0;
        for (int i = 0; i < 60; i++) {
            world_step(&w);
        }
    }
    struct spool_figures f;
    world_settle(&w);
    spool_figures(w.sp, &f);
    world_check(&w);
    assert_int_equal(w.broken, 0);
    assert_true(f.index.messages > 10);
    uint64_t live_segments = f.log.live_octets / SEGMENT + 1;
    assert_true(f.log.segments <= 3 * live_segments + 4);
    stop(&w);
    assert_int_equal(world_open(&w), 0);
    world_check(&w);
    world_deliver_all(&w);
    assert_int_equal(w.broken, 0);
    assert_int_equal(index_count(spool_index(w.sp)), 0);
    world_fini(&w);
}

/* Moved on in the last batch, and rotten there and where it was before: its sender is told, the others go out. */
static void test_moved_and_rotten_in_both_places(void **state)
{
    (void)state;
    struct world w;
    start(&w);
    for (int i = 0; i < 3; i++) {
        world_send(&w, 3000, false);
    }
    world_settle(&w);
    struct message *m = index_find(spool_index(w.sp), w.ledger[1].id);
    uint64_t places[2] = {m->offset};
    assert_int_equal(tidy_move_now(w.sp, m), 0);
    world_settle(&w);
    places[1] = m->offset;
    assert_int_not_equal(places[0], places[1]);
    stop(&w);
    size_t size;
    for (int i = 0; i < 2; i++) {
        memdisk_octets(w.mem, first_segment, &size)[places[i] + 1000] ^= 1;
    }
    assert_int_equal(world_open(&w), 0);
    world_deliver_all(&w);
    assert_int_equal(w.broken, 0);
    assert_int_equal(index_count(spool_index(w.sp)), 0);
    for (size_t i = 0; i < w.ledger_count; i++) {
        assert_int_equal(w.ledger[i].fate, i == 1 ? WORLD_ACKED : WORLD_DELIVERED);
        assert_int_equal(w.ledger[i].dsn_delivered, i == 1);
    }
    world_fini(&w);
}

/* The batch that named a large message has rotted: its octets are set aside, as the batch is, and not cleared away. */
static void test_large_file_whose_record_has_rotted(void **state)
{
    (void)state;
    struct world w;
    start(&w);
    world_send(&w, 20000, true);
    world_settle(&w);
    world_send(&w, 500, false);
    world_settle(&w);
    stop(&w);
    size_t size;
    char id[ID_TEXT_LEN + 1], name[40];
    memset(memdisk_octets(w.mem, first_segment, &size) + SPOOL_BLOCK, 0x55, SPOOL_BLOCK);
    assert_int_equal(world_open(&w), 0);
    id_format(w.ledger[0].id, id);
    assert_null(index_find(spool_index(w.sp), w.ledger[0].id));
    (void)snprintf(name, sizeof(name), "damaged/%s.eml", id);
    const uint8_t *octets = memdisk_octets(w.mem, name, &size);
    assert_non_null(octets);
    assert_int_equal(size, 20000);
    assert_memory_equal(octets, id, ID_TEXT_LEN);
    (void)snprintf(name, sizeof(name), "large/%s", id);
    assert_null(memdisk_octets(w.mem, name, &size));
    world_fini(&w);
}

static void test_suspensions_survive(void **state)
{
    (void)state;
    struct world w;
    start(&w);
    assert_int_equal(spool_suspend(w.sp, SPAN_LIT("alice"), SPAN_LIT("spam")), 0);
    assert_int_equal(spool_suspend(w.sp, SPAN_LIT("carol"), SPAN_LIT("spam")), 0);
    assert_int_equal(spool_resume(w.sp, SPAN_LIT("carol")), 0);
    spool_shard_up(w.sp, 0, true);
    w.puts_weight = 9;
    for (int i = 0; i < 400; i++) { /* over many segments */
        world_step(&w);
    }
    stop(&w);
    assert_int_equal(world_open(&w), 0);
    assert_true(index_is_suspended(spool_index(w.sp), SPAN_LIT("alice")));
    assert_false(index_is_suspended(spool_index(w.sp), SPAN_LIT("carol")));
    spool_suspensions_begin(w.sp); /* a guard that does not know alice's any more */
    spool_suspensions_settle(w.sp);
    assert_false(index_is_suspended(spool_index(w.sp), SPAN_LIT("alice")));
    world_deliver_all(&w);
    assert_int_equal(index_count(spool_index(w.sp)), 0);
    world_fini(&w);
}

int main(void)
{
    log_open("recover-test", getenv("SPOOL_TEST_LOG") != NULL ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR + 1, -1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_batch_torn_at_every_unit),
        cmocka_unit_test(test_every_octet_flipped),
        cmocka_unit_test(test_truncated_at_every_block),
        cmocka_unit_test(test_octets_like_a_batch),
        cmocka_unit_test(test_a_batch_that_claims_too_much),
        cmocka_unit_test(test_snapshot_and_replay_agree),
        cmocka_unit_test(test_long_lived_mail_is_moved_on),
        cmocka_unit_test(test_moved_and_rotten_in_both_places),
        cmocka_unit_test(test_large_file_whose_record_has_rotted),
        cmocka_unit_test(test_suspensions_survive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
