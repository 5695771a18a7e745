/* What a destination decides with: its queue, its pace, what is remembered of hosts. Time is a number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "deliver/book.h"
#include "deliver/pace.h"
#include "deliver/queue.h"
#include "deliver/sessions.h"

struct numbered {
    struct queue_item item;
    int number;
};

static int pop_number(struct queue *q)
{
    struct queue_item *item = queue_pop(q);
    return item != NULL ? ((struct numbered *)item)->number : -1;
}

static void push(struct queue *q, const char *lane, struct numbered *n, int number)
{
    n->number = number;
    assert_int_equal(queue_push(q, span_str(lane), &n->item), 0);
}

static void queue_takes_turns(void **state)
{
    (void)state;
    struct queue q;
    struct numbered n[8];
    queue_init(&q);
    assert_int_equal(pop_number(&q), -1);
    push(&q, "bulk", &n[0], 10);
    push(&q, "bulk", &n[1], 11);
    push(&q, "bulk", &n[2], 12);
    push(&q, "other", &n[3], 20);
    push(&q, "", &n[4], 30);
    assert_int_equal(q.count, 5);
    assert_int_equal(pop_number(&q), 10);
    assert_int_equal(pop_number(&q), 20);
    assert_int_equal(pop_number(&q), 30);
    push(&q, "other", &n[5], 21);
    assert_int_equal(pop_number(&q), 11);
    assert_int_equal(pop_number(&q), 21);
    assert_int_equal(pop_number(&q), 12);
    assert_int_equal(pop_number(&q), -1);
    assert_int_equal(q.count, 0);
    queue_fini(&q);
}

static void queue_front_is_next(void **state)
{
    (void)state;
    struct queue q;
    struct numbered n[4];
    queue_init(&q);
    push(&q, "a", &n[0], 1);
    push(&q, "b", &n[1], 2);
    n[2].number = 3;
    assert_int_equal(queue_push_front(&q, span_str("b"), &n[2].item), 0);
    assert_int_equal(pop_number(&q), 3);
    assert_int_equal(pop_number(&q), 1);
    assert_int_equal(pop_number(&q), 2);
    n[3].number = 4;
    assert_int_equal(queue_push_front(&q, span_str("c"), &n[3].item), 0);
    assert_int_equal(pop_number(&q), 4);
    assert_int_equal(pop_number(&q), -1);
    queue_fini(&q);
}

static void pace_finds_its_level(void **state)
{
    (void)state;
    struct pace p;
    pace_init(&p, 20);
    assert_int_equal(p.limit, PACE_START);
    for (int i = 0; i < 100; i++) {
        pace_success(&p);
    }
    assert_int_equal(p.limit, 20);
    pace_failure(&p);
    assert_int_equal(p.limit, 10);
    for (int i = 0; i < 100; i++) {
        pace_failure(&p);
    }
    assert_int_equal(p.limit, 1);
    pace_success(&p);
    pace_set_max(&p, 1);
    assert_int_equal(p.limit, 1);
    pace_init(&p, 0);
    assert_int_equal(p.limit, 1);
}

static struct net_address numbered_address(uint32_t n)
{
    struct net_address a = {.port = 25};
    memcpy(a.bytes + 12, &n, sizeof(n));
    return a;
}

static void book_remembers_for_a_while(void **state)
{
    (void)state;
    struct book *b = book_new();
    struct refusal why;
    struct net_address a = numbered_address(1), other_port = a;
    other_port.port = 26;
    refusal_set(&why, false, 421, 4, 1, "%s", "go away");
    assert_null(book_down(b, &a, 0, 1000));
    book_set_down(b, &a, 0, &why, 1000 + BOOK_DOWN_MS);
    assert_non_null(book_down(b, &a, 0, 1000 + BOOK_DOWN_MS - 1));
    assert_string_equal(book_down(b, &a, 0, 1000)->words, "go away");
    assert_null(book_down(b, &a, 0, 1000 + BOOK_DOWN_MS));
    assert_null(book_down(b, &other_port, 0, 1000));
    book_set_tls_broken(b, &a, 1000);
    book_set_up(b, &a, 0);
    assert_null(book_down(b, &a, 0, 1000));
    assert_true(book_tls_broken(b, &a, 1000 + BOOK_TLS_MS - 1));
    assert_false(book_tls_broken(b, &a, 1000 + BOOK_TLS_MS));
    book_free(&b);
    assert_null(b);
}

static void book_knows_scopes(void **state)
{
    (void)state;
    struct book *b = book_new();
    struct net_address a = numbered_address(1);
    struct refusal why = {0};
    book_set_down(b, &a, 7, &why, BOOK_DOWN_MS);
    assert_non_null(book_down(b, &a, 7, 1));
    assert_null(book_down(b, &a, 8, 1));
    assert_null(book_down(b, &a, 0, 1));
    book_set_down(b, &a, 0, &why, BOOK_DOWN_MS);
    assert_non_null(book_down(b, &a, 8, 1));
    book_set_up(b, &a, 8);
    assert_null(book_down(b, &a, 8, 1));
    assert_non_null(book_down(b, &a, 7, 1));
    book_set_up(b, &a, 7);
    assert_int_equal(book_count(b), 0);
    book_free(&b);
}

static void book_is_bounded(void **state)
{
    (void)state;
    struct book *b = book_new();
    struct refusal why = {0};
    for (uint32_t i = 0; i < BOOK_MAX + 10; i++) {
        struct net_address a = numbered_address(i);
        book_set_down(b, &a, 0, &why, BOOK_DOWN_MS);
    }
    assert_int_equal(book_count(b), BOOK_MAX);
    struct net_address first = numbered_address(0), last = numbered_address(BOOK_MAX + 9);
    assert_null(book_down(b, &first, 0, 1));
    assert_non_null(book_down(b, &last, 0, 1));
    book_set_up(b, &last, 0);
    assert_int_equal(book_count(b), BOOK_MAX - 1);
    book_free(&b);
}

static const char *session_get(struct sessions *s, const struct sessions_key *k, uint64_t now_ms)
{
    static struct buf out;
    buf_fini(&out);
    buf_init(&out, SESSIONS_OCTETS + 1);
    bool found = sessions_get(s, k, &out, now_ms);
    assert_int_equal(buf_append_byte(&out, '\0'), 0);
    return found ? (const char *)out.data : NULL;
}

static void sessions_are_kept_apart(void **state)
{
    (void)state;
    struct sessions *s = sessions_new();
    struct sessions_key a = {.route = 1, .name = "mx.example"}, other[3] = {a, a, a};
    other[0].route = 2;
    other[1].name = "mx.example.org";
    other[2].address.port = 465;
    sessions_put(s, &a, SPAN_LIT("twelve"), false, 0);
    for (size_t i = 0; i < 3; i++) {
        assert_null(session_get(s, &other[i], 1));
    }
    assert_string_equal(session_get(s, &a, 1), "twelve");
    assert_string_equal(session_get(s, &a, SESSIONS_AGE_MS - 1), "twelve"); /* TLS 1.2: again and again */
    assert_null(session_get(s, &a, SESSIONS_AGE_MS));
    sessions_put(s, &a, SPAN_LIT("one"), true, 0);
    sessions_put(s, &a, SPAN_LIT("two"), true, 0);
    assert_string_equal(session_get(s, &a, 1), "two");
    assert_string_equal(session_get(s, &a, 1), "one");
    assert_null(session_get(s, &a, 1)); /* TLS 1.3: once */
    sessions_put(s, &a, SPAN_LIT("broken"), false, 0);
    sessions_forget(s, &a);
    assert_null(session_get(s, &a, 1));
    sessions_free(&s);
}

static void sessions_are_bounded(void **state)
{
    (void)state;
    static uint8_t long_one[SESSIONS_OCTETS + 1];
    struct sessions *s = sessions_new();
    struct sessions_key first = {.route = 0, .name = "mx"}, k = first;
    sessions_put(s, &first, (struct span){long_one, sizeof(long_one)}, false, 0);
    assert_null(session_get(s, &first, 1));
    for (uint32_t i = 0; i < SESSIONS_HOSTS_MAX; i++) {
        k.route = i;
        for (int n = 0; n < SESSIONS_EACH_MAX + 2; n++) {
            sessions_put(s, &k, SPAN_LIT("x"), true, 0);
        }
    }
    for (int n = 0; n < SESSIONS_EACH_MAX; n++) {
        assert_non_null(session_get(s, &k, 1));
    }
    assert_null(session_get(s, &k, 1));
    assert_non_null(session_get(s, &first, 1));
    k.route = SESSIONS_HOSTS_MAX;
    sessions_put(s, &k, SPAN_LIT("x"), false, 0);
    assert_null(session_get(s, &first, 1)); /* the oldest host made room */
    assert_non_null(session_get(s, &k, 1));
    sessions_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_are_kept_apart), cmocka_unit_test(sessions_are_bounded),
        cmocka_unit_test(queue_takes_turns),       cmocka_unit_test(queue_front_is_next),
        cmocka_unit_test(pace_finds_its_level),    cmocka_unit_test(book_remembers_for_a_while),
        cmocka_unit_test(book_knows_scopes),       cmocka_unit_test(book_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
