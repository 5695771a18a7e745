/* A configuration: any octets give a structure, or complaints that each have a place and words; never both. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_complaints(const struct config_complaints *complaints)
{
    struct buf words;
    assert(complaints->count > 0 && complaints->count <= CONFIG_COMPLAINTS_MAX);
    for (size_t i = 0; i < complaints->count; i++) {
        const struct config_complaint *one = &complaints->list[i];
        assert(one->line > 0 && one->column > 0 && one->text[0] != '\0' && strchr(one->text, '\n') == NULL);
    }
    buf_init(&words, 1 << 20);
    assert(config_complaints_format(complaints, &words) == 0);
    buf_fini(&words);
}

static void check_prefixes(const struct config_prefixes *p)
{
    for (size_t i = 0; i < p->count; i++) {
        assert(p->list[i].bits <= 128);
    }
}

static void check_gate(const struct config_gate *g)
{
    size_t scoped = 0;
    for (size_t i = 0; i < g->subscriber_interfaces.count; i++) {
        for (size_t k = 0; k < g->uplink_interfaces.count; k++) {
            const char *a = g->subscriber_interfaces.list[i], *b = g->uplink_interfaces.list[k];
            assert(strcmp(a, b) != 0 && !config_interface_matches(a, b) && !config_interface_matches(b, a));
        }
    }
    for (size_t i = 0; i < g->classes_count; i++) {
        const struct config_gate_class *c = &g->classes[i];
        assert(c->name != NULL && (c->prefixes.count > 0 || c->prefixes_file != NULL));
        assert((c->port25 == PORT25_RATE) == (c->rate > 0 && c->rate_window_ms > 0));
        assert(c->prefixes_inline == c->prefixes.count);
        check_prefixes(&c->prefixes);
        scoped += c->to.count > 0 ? 1 : 0;
    }
    assert(scoped <= CONFIG_GATE_SCOPED_MAX && g->default_ != PORT25_RATE);
}

static void check_submission(const struct config *c)
{
    assert(c->submission.hostname != NULL && c->submission.listen_count > 0 && c->submission.auth.mechanisms != 0);
    for (size_t i = 0; i < c->submission.tls.certificates_count; i++) {
        assert(c->submission.tls.certificates[i].certificate[0] == '/');
        assert(c->submission.tls.certificates[i].key[0] == '/');
    }
}

static void check_config(const struct config *c)
{
    assert(c->submission.present || c->gate.present);
    if (c->submission.present) {
        check_submission(c);
    }
    check_gate(&c->gate);
    for (size_t i = 0; i < c->limits_count; i++) {
        assert(c->limits[i].name != NULL && c->limits[i].windows_count > 0 && c->limits[i].windows[0].window_ms > 0);
    }
    for (size_t i = 0; i < c->routes_count; i++) {
        const struct config_route *r = &c->routes[i];
        bool hop = r->via == VIA_SMARTHOST || r->via == VIA_LMTP;
        assert(hop == ((r->host != NULL && r->port > 0) || r->unix_path != NULL));
        assert(r->username == NULL || r->tls >= TLS_MUST);
        assert(config_route_find(c, span_str(r->domain)) == r);
    }
    (void)config_route_find(c, span_str("a.example.org"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c = NULL;
    struct config_complaints complaints = {0};
    int r = config_load((struct span){data, size}, "f", &c, &complaints);
    assert(r == 0 || r == -EINVAL);
    if (r == 0) {
        assert(c != NULL && complaints.count == 0);
        check_config(c);
    } else {
        assert(c == NULL);
        check_complaints(&complaints);
    }
    config_complaints_fini(&complaints);
    config_free(&c);
    return 0;
}
