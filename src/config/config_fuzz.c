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

static void check_config(const struct config *c)
{
    assert(c->submission.hostname != NULL && c->submission.listen_count > 0 && c->submission.auth.mechanisms != 0);
    for (size_t i = 0; i < c->submission.tls.certificates_count; i++) {
        assert(c->submission.tls.certificates[i].certificate[0] == '/');
        assert(c->submission.tls.certificates[i].key[0] == '/');
    }
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
