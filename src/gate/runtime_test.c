/* What is changed at run time: the set, its ends, its file on a real disk. */
#include "gate/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "policy/evaluate.h"

#define NOW 1795521600000 /* 2026-11-24T12:00:00Z */

static struct policy_prefix prefix_of(const char *text)
{
    struct net_prefix net;
    assert_null(config_gate_prefix_parse(text, &net));
    return policy_prefix_of(&net);
}

static int exempt(struct runtime *r, const char *prefix, uint64_t until_ms, char *reason)
{
    struct runtime_exemption e = {.prefix = prefix_of(prefix),
                                  .until_ms = until_ms,
                                  .added_ms = NOW,
                                  .words = {.reason = reason, .by = (char[]){"root"}}};
    return runtime_exempt(r, &e, NOW);
}

static int set_mode(struct runtime *r, const char *class_, bool monitor, bool was)
{
    struct runtime_mode m = {.monitor = monitor,
                             .was_monitor = was,
                             .since_ms = NOW,
                             .words = {.reason = (char[]){"trial"}, .by = (char[]){"uid 7"}}};
    (void)snprintf(m.class_, sizeof(m.class_), "%s", class_);
    return runtime_mode_set(r, &m, NOW);
}

static size_t ended;
static void count_end(void *arg, const struct runtime_exemption *e)
{
    (void)arg;
    assert_true(e->until_ms != 0);
    ended++;
}

static void test_exemptions(void **state)
{
    (void)state;
    struct runtime *r = runtime_new();
    assert_int_equal(exempt(r, "192.0.2.0/24", 0, (char[]){"first"}), 0);
    assert_int_equal(exempt(r, "192.0.2.7", NOW + 5000, (char[]){"second"}), 0);
    assert_int_equal(exempt(r, "2001:db8::/48", NOW + 1000, (char[]){"third"}), 0);
    assert_int_equal(exempt(r, "192.0.2.0/24", NOW + 9000, (char[]){"instead"}), 0);
    assert_int_equal(r->exemptions_count, 3);
    assert_int_equal(r->last_id, 4);
    struct policy_prefix p = prefix_of("192.0.2.0/24"), q = prefix_of("192.0.2.7"), v6 = prefix_of("::/0");
    assert_string_equal(runtime_exemption_of(r, &p)->words.reason, "instead");
    assert_int_equal(runtime_exemption_of(r, &p)->id, 4);
    assert_string_equal(runtime_covering(r, &q)->words.reason, "second");
    assert_null(runtime_covering(r, &v6)); /* the families never meet */
    assert_null(runtime_exemption_of(r, &v6));
    assert_int_equal(runtime_next_end(r), NOW + 1000);
    assert_int_equal(runtime_prune(r, NOW + 999, count_end, NULL), 0);
    assert_int_equal(runtime_prune(r, NOW + 5000, count_end, NULL), 2);
    assert_int_equal(ended, 2);
    assert_string_equal(runtime_covering(r, &q)->words.reason, "instead");
    assert_int_equal(runtime_now(r, NOW), NOW + 5000); /* the clock went back: it is not believed */
    assert_int_equal(runtime_unexempt(r, &q, NOW), -ENOENT);
    assert_int_equal(runtime_unexempt(r, &p, NOW), 0);
    assert_int_equal(r->exemptions_count, 0);
    runtime_free(&r);
    assert_null(r);
}

static void test_bound(void **state)
{
    (void)state;
    struct runtime *r = runtime_new();
    char text[32];
    for (unsigned i = 0; i < RUNTIME_EXEMPTIONS_MAX; i++) {
        (void)snprintf(text, sizeof(text), "10.0.%u.%u", i / 256, i % 256);
        assert_int_equal(exempt(r, text, 0, (char[]){"x"}), 0);
    }
    assert_int_equal(exempt(r, "192.0.2.1", 0, (char[]){"x"}), -E2BIG);
    assert_int_equal(exempt(r, "10.0.0.0", 0, (char[]){"another"}), 0); /* in place of another */
    struct runtime *copy = runtime_copy(r);
    assert_int_equal(copy->exemptions_count, RUNTIME_EXEMPTIONS_MAX);
    runtime_free(&copy);
    runtime_free(&r);
}

static struct config *config_of(const char *gate)
{
    struct config_complaints complaints = {0};
    struct config *c = NULL;
    char text[2048];
    (void)snprintf(text, sizeof(text), "operator:\n  name: x\n  domains: [x.example]\n%s", gate);
    assert_int_equal(config_load(span_str(text), "test", &c, &complaints), 0);
    return c;
}

static const char plain[] = "gate:\n  subscriber_interfaces: [eth1]\n  classes:\n"
                            "    - {name: shut, port25: deny, prefixes: [10.0.0.0/8]}\n"
                            "    - {name: tried, port25: monitor, prefixes: [10.1.0.0/16]}\n"
                            "    - {name: slow, port25: rate 5/h, prefixes: [10.2.0.0/16]}\n"
                            "    - {name: fixed, port25: allow, prefixes: [10.3.0.0/16]}\n";

static enum policy_verdict would_of(const struct policy *p, const char *from, enum policy_verdict *ret_verdict,
                                    uint64_t now_boot_ns)
{
    uint8_t frame[40] = {0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1, 0x10, 0, 0, 25};
    struct policy_address a;
    struct policy_judgement j;
    assert_int_equal(policy_address_parse(from, &a), 0);
    memcpy(frame + 12, a.bytes, 4);
    frame[32] = 0x50;
    frame[33] = 2;
    const struct policy_question q = {
        .side = PACKET_SUBSCRIBER, .link = PACKET_IP, .frame = {frame, sizeof(frame)}, .now_boot_ns = now_boot_ns};
    policy_evaluate(p, &q, &j);
    *ret_verdict = j.verdict;
    return j.would;
}

static void check(const struct runtime *r, const struct config *c, const char *from, enum policy_verdict verdict,
                  enum policy_verdict would)
{
    const struct runtime_moment now = {.wall_ms = NOW, .boot_ns = 5000};
    struct policy *p = NULL;
    enum policy_verdict is;
    assert_int_equal(runtime_policy(r, &c->gate, &now, &p), 0);
    assert_int_equal(would_of(p, from, &is, 5000), would);
    assert_int_equal(is, verdict);
    policy_free(&p);
}

static size_t dropped;
static void count_dropped(void *arg, const struct runtime_mode *m)
{
    (void)arg;
    (void)m;
    dropped++;
}

static void test_modes(void **state)
{
    (void)state;
    struct runtime *r = runtime_new();
    struct config *c = config_of(plain);
    bool monitor;
    assert_int_equal(runtime_mode_written(&c->gate, "", &monitor), 0);
    assert_false(monitor);
    assert_int_equal(runtime_mode_written(&c->gate, "tried", &monitor), 0);
    assert_true(monitor);
    assert_int_equal(runtime_mode_written(&c->gate, "slow", &monitor), -EINVAL);
    assert_int_equal(runtime_mode_written(&c->gate, "fixed", &monitor), -EINVAL);
    assert_int_equal(runtime_mode_written(&c->gate, "none", &monitor), -ENOENT);
    check(r, c, "10.0.0.1", POLICY_REFUSE, POLICY_REFUSE);
    check(r, c, "10.1.0.1", POLICY_PASS, POLICY_REFUSE);
    assert_int_equal(set_mode(r, "tried", false, true), 0);
    assert_int_equal(set_mode(r, "shut", true, false), 0);
    check(r, c, "10.0.0.1", POLICY_PASS, POLICY_REFUSE);
    check(r, c, "10.1.0.1", POLICY_REFUSE, POLICY_REFUSE);
    assert_int_equal(set_mode(r, "", true, false), 0);
    check(r, c, "10.1.0.1", POLICY_PASS, POLICY_REFUSE);
    assert_int_equal(set_mode(r, "", false, false), 0); /* back to what is written */
    assert_null(runtime_mode_of(r, ""));
    assert_int_equal(r->modes_count, 2);
    assert_int_equal(runtime_reconcile(r, &c->gate, count_dropped, NULL), 0);
    config_free(&c);
    /* The file now says of one what was said at run time, and does not know the other. */
    c = config_of("gate:\n  subscriber_interfaces: [eth1]\n  mode: monitor\n  classes:\n"
                  "    - {name: tried, port25: deny, prefixes: [10.1.0.0/16]}\n");
    assert_int_equal(set_mode(r, "", true, false), 0);
    check(r, c, "10.1.0.1", POLICY_PASS, POLICY_REFUSE);
    assert_int_equal(runtime_reconcile(r, &c->gate, count_dropped, NULL), 3);
    assert_int_equal(dropped, 3);
    assert_int_equal(r->modes_count, 0);
    config_free(&c);
    runtime_free(&r);
}

/* The end is given on the boot clock, whatever the wall clock says. */
static void test_ends(void **state)
{
    (void)state;
    struct runtime *r = runtime_new();
    struct config *c = config_of(plain);
    struct policy *p = NULL;
    enum policy_verdict verdict;
    assert_int_equal(exempt(r, "10.0.0.1", NOW + 60000, (char[]){"x"}), 0);
    assert_int_equal(exempt(r, "10.0.0.2", 0, (char[]){"x"}), 0);
    const struct runtime_moment moments[] = {{NOW, 0}, {NOW + 50000, 0}, {0, 0}, {NOW + 60000, 0}};
    const uint64_t left_ns[] = {60000000000, 10000000000, 60000000000, 0};
    for (size_t i = 0; i < 4; i++) {
        struct runtime_moment now = moments[i];
        now.boot_ns = 777;
        assert_int_equal(runtime_policy(r, &c->gate, &now, &p), 0);
        assert_int_equal(p->exemptions_count, left_ns[i] > 0 ? 2 : 1);
        if (left_ns[i] > 0) {
            (void)would_of(p, "10.0.0.1", &verdict, 777 + left_ns[i] - 1);
            assert_int_equal(verdict, POLICY_PASS);
        }
        (void)would_of(p, "10.0.0.1", &verdict, 777 + left_ns[i]);
        assert_int_equal(verdict, POLICY_REFUSE);
        (void)would_of(p, "10.0.0.2", &verdict, UINT64_MAX - 1);
        assert_int_equal(verdict, POLICY_PASS);
        policy_free(&p);
    }
    config_free(&c);
    runtime_free(&r);
}

static void test_until(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int r;
        uint64_t ms;
    } rows[] = {
        {"7d", 0, NOW + 604800000},
        {"2w", 0, NOW + 1209600000},
        {"12h", 0, NOW + 43200000},
        {"30m", 0, NOW + 1800000},
        {"1s", 0, NOW + 1000},
        {"3653d", 0, NOW + UINT64_C(3653) * 86400000},
        {"3654d", -ERANGE, 0},
        {"99999999999999999999s", -ERANGE, 0},
        {"18446744073709551615w", -ERANGE, 0},
        {"0d", -ERANGE, 0},
        {"7", -EINVAL, 0},
        {"7 d", -EINVAL, 0},
        {"7days", -EINVAL, 0},
        {"-7d", -EINVAL, 0},
        {"+7d", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"tomorrow", -EINVAL, 0},
        {"2026-11-24T12:00:01Z", 0, NOW + 1000},
        {"2026-11-24t12:00:01z", 0, NOW + 1000},
        {"2026-11-24T21:00:01+09:00", 0, NOW + 1000},
        {"2026-11-24T07:30:01-04:30", 0, NOW + 1000},
        {"2026-11-24T12:00:00.25Z", 0, NOW + 1000},
        {"2026-11-24T12:00:00.000Z", -ERANGE, 0},
        {"2026-11-24T12:00:00Z", -ERANGE, 0},
        {"2028-02-29T00:00:00Z", 0, 1835395200000},
        {"2027-02-29T00:00:00Z", -EINVAL, 0},
        {"2026-13-01T00:00:00Z", -EINVAL, 0},
        {"2026-00-01T00:00:00Z", -EINVAL, 0},
        {"2026-12-00T00:00:00Z", -EINVAL, 0},
        {"2026-12-01T24:00:00Z", -EINVAL, 0},
        {"2026-12-01T00:00:00", -EINVAL, 0},
        {"2026-12-01T00:00:00.Z", -EINVAL, 0},
        {"2026-12-01T00:00:00+9:00", -EINVAL, 0},
        {"2026-12-01", -EINVAL, 0},
        {"2026-12-01T00:00:00Zx", -EINVAL, 0},
        {"1969-12-31T23:59:59Z", -ERANGE, 0},
        {"2037-12-01T00:00:00Z", -ERANGE, 0},
        {"9999-12-31T23:59:60Z", -ERANGE, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t ms = 0;
        int r = runtime_until_parse(rows[i].text, NOW, &ms);
        if (r != rows[i].r || ms != rows[i].ms) {
            fail_msg("\"%s\": %d, %llu", rows[i].text, r, (unsigned long long)ms);
        }
    }
    uint64_t ms;
    char text[24];
    assert_int_equal(runtime_until_parse("5s", NOW + 1, &ms), 0);
    assert_int_equal(ms, NOW + 6000); /* never sooner than asked */
    runtime_time_format(ms, text);
    assert_string_equal(text, "2026-11-24T12:00:06Z");
}

/* The file */

struct place {
    char path[64];
    int fd;
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    memcpy(p->path, "/tmp/kidoban-runtime-XXXXXX", sizeof("/tmp/kidoban-runtime-XXXXXX"));
    assert_non_null(mkdtemp(p->path));
    p->fd = open(p->path, O_RDONLY | O_DIRECTORY);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    static const char *const names[] = {"runtime.json", "runtime.json.new", "runtime.json.damaged-77"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)unlinkat(p->fd, names[i], 0);
        (void)unlinkat(p->fd, names[i], AT_REMOVEDIR);
    }
    (void)close(p->fd);
    assert_int_equal(rmdir(p->path), 0);
    free(p);
    return 0;
}

static void same(const struct runtime *a, const struct runtime *b)
{
    json_t *x = runtime_json(a), *y = runtime_json(b);
    assert_true(json_equal(x, y));
    json_decref(x);
    json_decref(y);
}

static struct runtime *full_set(void)
{
    struct runtime *r = runtime_new();
    assert_int_equal(exempt(r, "192.0.2.0/24", 0, (char[]){"\"quoted\" \xe7\x90\x86\xe7\x94\xb1"}), 0);
    assert_int_equal(exempt(r, "2001:db8:0:7::/64", NOW + 1000, (char[]){"x"}), 0);
    assert_int_equal(set_mode(r, "", true, false), 0);
    assert_int_equal(set_mode(r, "tried", false, true), 0);
    return r;
}

static void test_file(void **state)
{
    struct place *p = *state;
    struct runtime *r = NULL, *again = NULL;
    assert_int_equal(runtime_load(p->fd, &r), 0);
    assert_int_equal(r->exemptions_count + r->modes_count, 0);
    runtime_free(&r);
    r = full_set();
    assert_int_equal(runtime_save(p->fd, r), 0);
    assert_int_equal(runtime_load(p->fd, &again), 0);
    same(r, again);
    assert_int_equal(again->known_ms, NOW);
    assert_int_equal(again->last_id, 2);
    runtime_free(&again);
    struct policy_prefix gone = prefix_of("2001:db8:0:7::/64");
    assert_int_equal(runtime_unexempt(r, &gone, NOW), 0);
    assert_int_equal(runtime_save(p->fd, r), 0);
    assert_int_equal(runtime_load(p->fd, &again), 0);
    assert_int_equal(again->last_id, 2); /* and is not used again */
    runtime_free(&again);
    runtime_free(&r);
}

/* Cut anywhere, or any octet turned over: it is not believed, and can be set aside. */
static void test_damaged(void **state)
{
    struct place *p = *state;
    struct runtime *r = full_set(), *again = NULL;
    uint8_t text[4096];
    char name[64];
    assert_int_equal(runtime_save(p->fd, r), 0);
    runtime_free(&r);
    int fd = openat(p->fd, "runtime.json", O_RDWR);
    ssize_t len = read(fd, text, sizeof(text));
    assert_true(len > 0);
    for (ssize_t i = 0; i < len; i++) {
        uint8_t turned = text[i] ^ 0x01;
        assert_int_equal(pwrite(fd, &turned, 1, i), 1);
        assert_int_equal(runtime_load(p->fd, &again), -EBADMSG);
        assert_int_equal(pwrite(fd, &text[i], 1, i), 1);
    }
    assert_int_equal(runtime_load(p->fd, &again), 0);
    runtime_free(&again);
    for (ssize_t i = len - 1; i >= 0; i--) {
        assert_int_equal(ftruncate(fd, i), 0);
        assert_int_equal(runtime_load(p->fd, &again), -EBADMSG);
        assert_null(again);
    }
    (void)close(fd);
    assert_int_equal(runtime_set_aside(p->fd, 77, name), 0);
    assert_string_equal(name, "runtime.json.damaged-77");
    assert_int_equal(faccessat(p->fd, name, F_OK, 0), 0);
    assert_int_equal(runtime_load(p->fd, &again), 0);
    runtime_free(&again);
}

/* Whole, with a sum that is right, and yet nothing that we wrote. */
static void test_nonsense(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "[]",
        "{}",
        "{'version':2,'known':null,'last_id':0,'exemptions':[],'modes':[]}",
        "{'version':1,'known':null,'last_id':-1,'exemptions':[],'modes':[]}",
        "{'version':1,'known':7,'last_id':0,'exemptions':[],'modes':[]}",
        "{'version':1,'known':null,'last_id':0,'exemptions':{},'modes':[]}",
        "{'version':1,'known':null,'last_id':0,'exemptions':[7],'modes':[]}",
        "{'version':1,'known':null,'last_id':0,'modes':[]}",
        "{'version':1,'known':null,'last_id':9,'modes':[],'exemptions':[{'id':1,'prefix':'192.0.2.1/24','until':null,"
        "'added':null,'by':'x','reason':'x'}]}",
        "{'version':1,'known':null,'last_id':9,'modes':[],'exemptions':[{'id':0,'prefix':'192.0.2.1','until':null,"
        "'added':null,'by':'x','reason':'x'}]}",
        "{'version':1,'known':null,'last_id':0,'modes':[],'exemptions':[{'id':1,'prefix':'192.0.2.1','until':null,"
        "'added':null,'by':'x','reason':'x'}]}",
        "{'version':1,'known':null,'last_id':9,'modes':[],'exemptions':[{'id':1,'prefix':'192.0.2.1','until':'7d',"
        "'added':null,'by':'x','reason':'x'}]}",
        "{'version':1,'known':null,'last_id':9,'exemptions':[],'modes':[{'class':null,'mode':'open','written':'enforce'"
        ","
        "'since':null,'by':'x','reason':'x'}]}",
        "{'version':1,'known':null,'last_id':9,'exemptions':[],'modes':[{'class':null,'mode':'enforce','written':"
        "'enforce','since':null,'by':'x','reason':'x'}]}",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char text[512];
        struct runtime *r = NULL;
        (void)snprintf(text, sizeof(text), "%s", texts[i]);
        for (char *at = text; (at = strchr(at, '\'')) != NULL;) {
            *at = '"';
        }
        json_t *json = json_loads(text, 0, NULL);
        assert_non_null(json);
        if (runtime_parse(json, &r) != -EBADMSG) {
            fail_msg("%s", text);
        }
        assert_null(r);
        json_decref(json);
    }
}

/* The disk refuses, at any octet of the file or at the rename: what was saved stands. */
static void test_disk_refuses(void **state)
{
    struct place *p = *state;
    struct runtime *old = full_set(), *new = full_set(), *again = NULL;
    struct rlimit before;
    struct stat st;
    assert_int_equal(runtime_save(p->fd, old), 0);
    assert_int_equal(fstatat(p->fd, "runtime.json", &st, 0), 0); /* the new one is longer */
    assert_int_equal(exempt(new, "198.51.100.0/24", 0, (char[]){"y"}), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, SIG_IGN);
    for (rlim_t room = 0; room <= (rlim_t)st.st_size; room += 7) {
        struct rlimit small = {.rlim_cur = room, .rlim_max = before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        int r = runtime_save(p->fd, new);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_true(r < 0);
        assert_int_equal(runtime_load(p->fd, &again), 0);
        same(again, old);
        runtime_free(&again);
    }
    assert_int_equal(unlinkat(p->fd, "runtime.json", 0), 0);
    assert_int_equal(mkdirat(p->fd, "runtime.json", 0700), 0);
    assert_true(runtime_save(p->fd, new) < 0);
    runtime_free(&old);
    runtime_free(&new);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exemptions),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_until),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test_setup_teardown(test_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_refuses, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
