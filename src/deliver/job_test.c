#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "deliver/job.h"
#include "deliver/outcome.h"

static const struct {
    const char *what;
    struct span in;
    const char *out;
} texts[] = {
    {"plain", {(const uint8_t *)"2.0.0 Ok", 8}, "2.0.0 Ok"},
    {"line ends", {(const uint8_t *)"a\r\nb\0c\x7f", 7}, "a  b c "},
    {"escape", {(const uint8_t *)"\033[2J", 4}, " [2J"},
    {"UTF-8", {(const uint8_t *)"\xe4\xbe\x8b\xc3\xa9", 5}, "\xe4\xbe\x8b\xc3\xa9"},
    {"half a character", {(const uint8_t *)"a\xe4\xbe", 3}, "a??"},
    {"overlong", {(const uint8_t *)"\xc0\xaf", 2}, "??"},
    {"surrogate", {(const uint8_t *)"\xed\xa0\x80", 3}, "???"},
    {"C1 control",
     {(const uint8_t *)"\xc2\x9b"
                       "2J",
      4},
     "?2J"},
    {"nothing", {NULL, 0}, ""},
};

static void text_is_one_printable_line(void **state)
{
    (void)state;
    char out[DELIVER_TEXT_MAX];
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        size_t n = outcome_text_clean(texts[i].in, out);
        if (n != strlen(texts[i].out) || memcmp(out, texts[i].out, n) != 0) {
            fail_msg("%s", texts[i].what);
        }
    }
    uint8_t longer[DELIVER_TEXT_MAX + 10];
    memset(longer, 'a', sizeof(longer));
    memcpy(longer + DELIVER_TEXT_MAX - 1, "\xe4\xbe\x8b", 3);
    assert_int_equal(outcome_text_clean((struct span){longer, sizeof(longer)}, out), DELIVER_TEXT_MAX - 1);
}

#define RECIPIENTS 700

struct heard {
    size_t frames, results;
    uint8_t result[RECIPIENTS];
};

static void on_send(void *arg, uint64_t id, uint64_t generation, const struct deliver_outcome *m)
{
    struct heard *h = arg;
    struct buf payload;
    assert_int_equal(id, 42);
    assert_int_equal(generation, 0);
    buf_init(&payload, FRAME_PAYLOAD_MAX);
    struct wire_writer w = {.out = &payload};
    deliver_outcome_encode(&w, m);
    assert_int_equal(w.error, 0);
    buf_fini(&payload);
    h->frames++;
    for (size_t i = 0; i < m->results_count; i++) {
        assert_int_equal(h->result[m->results[i].number], 0);
        h->result[m->results[i].number] = m->results[i].result;
        h->results++;
    }
}

static int memory_file(const char *octets)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(write(fd, octets, strlen(octets)), (ssize_t)strlen(octets));
    return fd;
}

static struct job *job_of(struct files *files, size_t recipients, uint64_t offset, uint64_t length)
{
    static struct envelope_recipient list[RECIPIENTS];
    for (size_t i = 0; i < recipients; i++) {
        list[i] = (struct envelope_recipient){.number = (uint16_t)i, .address = SPAN_LIT("to@example.org")};
    }
    struct deliver_job m = {.file = 7,
                            .offset = offset,
                            .length = length,
                            .domain = SPAN_LIT("example.org"),
                            .envelope = {.sender = SPAN_LIT("from@example.net"),
                                         .recipients = list,
                                         .recipients_count = (uint16_t)recipients}};
    struct buf payload;
    buf_init(&payload, FRAME_PAYLOAD_MAX);
    struct wire_writer w = {.out = &payload};
    deliver_job_encode(&w, &m);
    struct job *j = NULL;
    int r = job_new(42, buf_span(&payload), files, &j);
    buf_fini(&payload);
    if (r < 0) {
        assert_null(j);
        errno = -r;
    }
    return j;
}

static void files_and_reading(void **state)
{
    (void)state;
    struct files *files = files_new();
    assert_null(job_of(files, 1, 0, 5));
    assert_int_equal(errno, ENOENT);
    assert_int_equal(files_add(files, 7, memory_file("0123456789")), 0);
    assert_int_equal(files_add(files, 7, memory_file("again")), -EEXIST);
    struct job *j = job_of(files, 2, 3, 5);
    assert_non_null(j);
    assert_int_equal(files_forget(files, 7), 0);
    assert_int_equal(files_forget(files, 7), -ENOENT);
    char room[8] = "";
    assert_int_equal(job_read(j, 1, room, 3), 0); /* the job holds the file */
    assert_string_equal(room, "456");
    assert_int_equal(job_read(j, 3, room, 3), -EINVAL);
    assert_int_equal(job_read(j, 6, room, 0), -EINVAL);
    assert_true(span_eq(j->wire.domain, span_str("example.org")));
    assert_true(span_eq(j->wire.envelope.sender, span_str("from@example.net")));
    assert_true(span_eq(j->wire.envelope.recipients[1].address, span_str("to@example.org")));
    assert_int_equal(j->wire.envelope.account.len, 0);
    job_free(&j);
    files_free(&files);
}

static void file_shorter_than_said(void **state)
{
    (void)state;
    struct files *files = files_new();
    assert_int_equal(files_add(files, 7, memory_file("0123")), 0);
    struct job *j = job_of(files, 1, 2, 5);
    char room[8];
    assert_int_equal(job_read(j, 0, room, 5), -EBADMSG);
    files_free(&files); /* before the job: its file stays */
    assert_int_equal(job_read(j, 0, room, 2), 0);
    job_free(&j);
}

static void nonsense(void **state)
{
    (void)state;
    struct files *files = files_new();
    struct job *j = NULL;
    assert_int_equal(job_new(1, SPAN_LIT("nonsense"), files, &j), -EBADMSG);
    assert_int_equal(job_new(1, (struct span){0}, files, &j), -EBADMSG);
    files_free(&files);
}

static void each_recipient_once(void **state)
{
    (void)state;
    struct files *files = files_new();
    assert_int_equal(files_add(files, 7, memory_file("0123")), 0);
    struct job *j = job_of(files, RECIPIENTS, 0, 4);
    struct heard heard = {0};
    static struct outcome_sink sink;
    sink.send = on_send;
    sink.arg = &heard;
    const struct outcome_peer peer = {.remote = SPAN_LIT("mx.example.org")};
    char text[2000];
    memset(text, 'x', sizeof(text));
    struct outcome_said refused = {.result = DELIVER_PERMANENT, .code = 550, .text = SPAN_LIT("no")};
    struct outcome_said taken = {.result = DELIVER_DELIVERED, .code = 250, .text = {(uint8_t *)text, sizeof(text)}};
    outcome_one(&sink, j, 5, &peer, &refused);
    assert_int_equal(j->open, RECIPIENTS - 1);
    outcome_rest(&sink, j, &peer, &taken);
    assert_int_equal(j->open, 0);
    outcome_rest(&sink, j, &peer, &taken);
    outcome_flush(&sink);
    assert_int_equal(heard.results, RECIPIENTS);
    assert_true(heard.frames >= 4); /* long words for many do not fit one frame */
    assert_int_equal(heard.result[5], DELIVER_PERMANENT);
    assert_int_equal(heard.result[6], DELIVER_DELIVERED);
    assert_int_equal(sink.counts[DELIVER_DELIVERED], RECIPIENTS - 1);
    assert_int_equal(sink.counts[DELIVER_PERMANENT], 1);
    job_free(&j);
    files_free(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_one_printable_line), cmocka_unit_test(files_and_reading),
        cmocka_unit_test(file_shorter_than_said),     cmocka_unit_test(nonsense),
        cmocka_unit_test(each_recipient_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
