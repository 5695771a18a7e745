#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistr.h>

#include "common/id.h"
#include "message/date.h"
#include "message/dsn.h"
#include "message/header.h"

#define BOUNDARIES   64 /* to choose from; the text of one is "kidoban-<id>-NN" */
#define BOUNDARY_MAX 32
#define FOLD_AT      72  /* octets of a line after which a space becomes a fold */
#define FOLD_HARD    900 /* and where there is none */
#define QP_LINE_MAX  75

/* What is being written. After the first error nothing more is. */
struct writer {
    struct buf *out;
    int err;
    size_t column;
    bool utf8; /* fields of the report may carry UTF-8 (RFC 6533) */
};

static void put(struct writer *w, struct span s)
{
    if (w->err == 0) {
        w->err = buf_append(w->out, s.ptr, s.len);
    }
}

static void put_str(struct writer *w, const char *s)
{
    put(w, span_str(s));
}

static void put_f(struct writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Short things of our own only. */
static void put_f(struct writer *w, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    put_str(w, text);
}

static bool has_8bit(struct span s)
{
    uint8_t seen = 0;
    for (size_t i = 0; i < s.len; i++) {
        seen |= s.ptr[i];
    }
    return seen >= 0x80;
}

static struct span clip(struct span s, size_t max)
{
    return (struct span){s.ptr, s.len < max ? s.len : max};
}

/* Fields. */

/* One octet of a stranger's into a field: it can end neither line nor field. */
static void put_field_octet(struct writer *w, uint8_t c, bool utf8)
{
    if (c < ' ' || c == 127) {
        c = ' ';
    } else if (c >= 0x80 && !utf8) {
        c = '?';
    }
    bool fold = (c == ' ' && w->column >= FOLD_AT) || (w->column >= FOLD_HARD && (c & 0xc0) != 0x80);
    if (fold) {
        put_str(w, "\r\n ");
        w->column = 1;
    }
    if (!fold || c != ' ') {
        put(w, (struct span){&c, 1});
        w->column++;
    }
}

static void put_field_text(struct writer *w, struct span s)
{
    bool utf8 = w->utf8 && s.len > 0 && u8_check(s.ptr, s.len) == NULL;
    bool space = true; /* runs of it become one: a fold never makes a line of nothing but white space */
    while (s.len > 0 && s.ptr[s.len - 1] <= ' ') {
        s.len--;
    }
    for (size_t i = 0; i < s.len && w->err == 0; i++) {
        bool now = s.ptr[i] <= ' ' || s.ptr[i] == 127;
        if (!now || !space) {
            put_field_octet(w, s.ptr[i], utf8);
        }
        space = now;
    }
}

static void begin_field(struct writer *w, const char *name, const char *type)
{
    put_f(w, "%s: %s", name, type);
    w->column = strlen(name) + 2 + strlen(type);
}

static void put_field(struct writer *w, const char *name, const char *type, struct span value)
{
    begin_field(w, name, type);
    put_field_text(w, value);
    put_str(w, "\r\n");
}

static void put_date_field(struct writer *w, const char *name, int64_t unix_s, int utc_offset_min)
{
    char date[MESSAGE_DATE_LEN + 1];
    message_date_format(unix_s, utc_offset_min, date);
    put_f(w, "%s: %s\r\n", name, date);
}

/* The part for people: quoted-printable (RFC 2045 section 6.7), readable as it stands where it is English. */

static void put_qp_octet(struct writer *w, uint8_t c, bool line_end)
{
    /* a "-" at the start of a line could begin a boundary; white space at its end is lost on the way */
    bool bare = (c > ' ' && c < 127 && c != '=' && !(c == '-' && w->column == 0)) || (c == ' ' && !line_end);
    if (w->column + (bare ? 1 : 3) > QP_LINE_MAX) {
        put_str(w, "=\r\n");
        w->column = 0;
        bare = bare && c != '-';
    }
    if (bare) {
        put(w, (struct span){&c, 1});
        w->column++;
    } else {
        put_f(w, "=%02X", c);
        w->column += 3;
    }
}

/* Our words: UTF-8, "\n" ends a line. */
static void put_words(struct writer *w, const char *words)
{
    for (const char *p = words; *p != '\0' && w->err == 0; p++) {
        if (*p == '\n') {
            put_str(w, "\r\n");
            w->column = 0;
        } else {
            put_qp_octet(w, (uint8_t)*p, p[1] == '\n');
        }
    }
}

/* A stranger's: one line, printable; UTF-8 only where it is. */
static void put_quote(struct writer *w, struct span s)
{
    bool utf8 = s.len > 0 && u8_check(s.ptr, s.len) == NULL;
    for (size_t i = 0; i < s.len && w->err == 0; i++) {
        uint8_t c = s.ptr[i];
        bool good = (c >= ' ' && c < 127) || (c >= 0x80 && utf8);
        put_qp_octet(w, good ? c : '?', i + 1 == s.len);
    }
}

struct advice {
    uint8_t subject, detail;
    const char *en, *ja;
};

/* What the sender can do, by the enhanced code (RFC 3463, RFC 5248). */
static const struct advice advices[] = {
    {1, 1, "There is no such mailbox there. Look for a mistake in the address.",
     "そのあて先は存在しません。アドレスに間違いがないか確認してください。"},
    {1, 2, "The domain behind the @ does not exist or takes no mail. Look for a mistake in it.",
     "「@」より後ろのドメインが存在しないか、メールを受け付けていません。間違いがないか確認してください。"},
    {1, 10, "The domain behind the @ says that it takes no mail at all.",
     "「@」より後ろのドメインはメールを受け付けていません。"},
    {2, 1, "The mailbox is closed or takes no mail now.", "そのメールボックスは現在メールを受け付けていません。"},
    {2, 2, "The mailbox is full. Its owner has to make room.", "相手のメールボックスがいっぱいです。"},
    {2, 3, "The message is too large for that mailbox. Send less, or send a link.",
     "メールが大きすぎます。添付ファイルを小さくするか、リンクで送ってください。"},
    {3, 4, "The message is too large for that host. Send less, or send a link.",
     "メールが大きすぎます。添付ファイルを小さくするか、リンクで送ってください。"},
    {4, 4, "The domain behind the @ has no mail host that can be found. Look for a mistake in it.",
     "「@」より後ろのドメインのメールサーバーが見つかりません。間違いがないか確認してください。"},
    {4, 6, "The message went round in a loop. Please tell the operator of the receiving system.",
     "メールが転送の循環に入りました。受信側の管理者に連絡してください。"},
    {4, 7, "It could not be delivered in the time set for it.", "定められた期間内に配送できませんでした。"},
    {6, 7, "The next host cannot take an address or a header with characters outside ASCII.",
     "相手のサーバーは ASCII 以外の文字を含むアドレスやヘッダーに対応していません。"},
    {7, 1, "The receiving system refused it by its own rules. Its words above say why.",
     "受信側の方針により拒否されました。理由は上記の応答文を見てください。"},
};

static const struct advice *find_advice(const struct message_dsn_recipient *r)
{
    for (size_t i = 0; i < sizeof(advices) / sizeof(advices[0]); i++) {
        if (advices[i].subject == r->status[1] && advices[i].detail == r->status[2]) {
            return &advices[i];
        }
    }
    return NULL;
}

static const struct {
    const char *word; /* RFC 3464 section 2.3.3 */
    uint8_t class;
    const char *subject, *en, *ja;
} actions[MESSAGE_DSN_ACTION_COUNT] = {
    [MESSAGE_DSN_FAILED] = {"failed", 5, "Your message could not be delivered",
                            "Your message could not be delivered to:\n",
                            "次のあて先にメールを配送できませんでした。再送は行いません。\n"},
    [MESSAGE_DSN_DELAYED] = {"delayed", 4, "Your message is delayed",
                             "Your message could not be delivered yet. It is kept and tried again; you\n"
                             "need not send it again. It waits for:\n",
                             "次のあて先への配送が遅れています。自動的に再送しますので、送り直す必要はありません。\n"},
    [MESSAGE_DSN_DELIVERED] = {"delivered", 2, "Your message was delivered", "Your message was delivered to:\n",
                               "次のあて先にメールを配送しました。\n"},
    [MESSAGE_DSN_RELAYED] = {"relayed", 2, "Your message was passed on",
                             "Your message was passed on to a host that will not say more. It was for:\n",
                             "次のあて先のメールを、配送結果を通知しないサーバーに引き渡しました。\n"},
    [MESSAGE_DSN_EXPANDED] = {"expanded", 2, "Your message was passed on",
                              "Your message was passed on to the members of:\n",
                              "次のあて先（複数の宛先への配布）にメールを引き渡しました。\n"},
};

static bool has_action(const struct message_dsn *dsn, enum message_dsn_action action)
{
    for (size_t i = 0; i < dsn->recipients_count; i++) {
        if (dsn->recipients[i].action == action) {
            return true;
        }
    }
    return false;
}

static enum message_dsn_action worst(const struct message_dsn *dsn)
{
    for (enum message_dsn_action a = MESSAGE_DSN_FAILED; a < MESSAGE_DSN_ACTION_COUNT; a++) {
        if (has_action(dsn, a)) {
            return a;
        }
    }
    return MESSAGE_DSN_FAILED;
}

static void put_said(struct writer *w, const struct message_dsn_recipient *r)
{
    char code[32];
    put_words(w, "    ");
    if (r->code != 0) {
        put_quote(w, r->remote.len > 0 ? clip(r->remote, 255) : SPAN_LIT("the next host"));
        (void)snprintf(code, sizeof(code), " said: %u ", r->code);
        put_words(w, code);
    }
    put_quote(w, clip(r->diagnostic, MESSAGE_DSN_DIAGNOSTIC_MAX));
    put_words(w, "\n");
}

static void put_person_recipient(struct writer *w, const struct message_dsn_recipient *r, bool japanese)
{
    const struct advice *advice = r->action <= MESSAGE_DSN_DELAYED ? find_advice(r) : NULL;
    put_words(w, "\n  <");
    put_quote(w, clip(r->address, 1024));
    put_words(w, ">\n");
    if (!japanese && (r->code != 0 || r->diagnostic.len > 0)) {
        put_said(w, r);
    }
    if (advice != NULL) {
        put_words(w, "    ");
        put_words(w, japanese ? advice->ja : advice->en);
        put_words(w, "\n");
    }
}

static void put_language(struct writer *w, const struct message_dsn *dsn, bool japanese)
{
    for (size_t a = 0; a < MESSAGE_DSN_ACTION_COUNT; a++) {
        size_t listed = 0;
        if (!has_action(dsn, (enum message_dsn_action)a)) {
            continue;
        }
        put_words(w, japanese ? actions[a].ja : actions[a].en);
        for (size_t i = 0; i < dsn->recipients_count && listed < MESSAGE_DSN_LISTED_MAX; i++) {
            if (dsn->recipients[i].action == a) {
                put_person_recipient(w, &dsn->recipients[i], japanese);
                listed++;
            }
        }
        if (listed == MESSAGE_DSN_LISTED_MAX) {
            put_words(w, "\n  ...\n");
        }
        put_words(w, "\n");
    }
}

static void put_for_people(struct writer *w, const struct message_dsn *dsn)
{
    char id[ID_TEXT_LEN + 1];
    put_str(w, "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
    w->column = 0;
    put_words(w, "This is the mail system at ");
    put_quote(w, clip(dsn->hostname, 255));
    put_words(w, ".\n\n");
    put_language(w, dsn, false);
    if (dsn->original_id != 0) {
        id_format(dsn->original_id, id);
        put_words(w, "When you ask your provider about it, give this number: ");
        put_words(w, id);
        put_words(w, "\n");
    }
    if (dsn->help_url.len > 0) {
        put_words(w, "Help: ");
        put_quote(w, clip(dsn->help_url, 512));
        put_words(w, "\n");
    }
    put_words(w, "\n* * *\n\n");
    put_language(w, dsn, true);
}

/* The part for programs (RFC 3464). */

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* xtext of RFC 3461 section 4. false: malformed, or it hides what is not printable ("+0D+0A"): then it is left out. */
static bool put_xtext(struct buf *b, struct span s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        if (c == '+') {
            int high = i + 2 < s.len ? hex(s.ptr[i + 1]) : -1;
            int low = high >= 0 ? hex(s.ptr[i + 2]) : -1;
            if (low < 0) {
                return false;
            }
            c = (uint8_t)(high * 16 + low);
            i += 2;
        }
        if (c < ' ' || c == 127 || buf_append_byte(b, c) < 0) {
            return false;
        }
    }
    return b->len > 0;
}

static void put_xtext_field(struct writer *w, const char *name, const char *type, struct span xtext)
{
    struct buf plain;
    buf_init(&plain, 2048);
    if (put_xtext(&plain, xtext) && (w->utf8 || !has_8bit(buf_span(&plain)))) {
        put_field(w, name, type, buf_span(&plain));
    }
    buf_fini(&plain);
}

static void put_original_recipient(struct writer *w, struct span orcpt)
{
    char type[32];
    const uint8_t *semicolon = orcpt.len > 0 ? memchr(orcpt.ptr, ';', orcpt.len) : NULL;
    size_t len = semicolon != NULL ? (size_t)(semicolon - orcpt.ptr) : 0;
    if (len == 0 || len > sizeof(type) - 3) {
        return;
    }
    for (size_t i = 0; i < len; i++) {
        uint8_t c = orcpt.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-')) {
            return;
        }
    }
    (void)snprintf(type, sizeof(type), "%.*s; ", (int)len, (const char *)orcpt.ptr);
    put_xtext_field(w, "Original-Recipient", type, (struct span){semicolon + 1, orcpt.len - len - 1});
}

static void put_diagnostic(struct writer *w, const struct message_dsn_recipient *r)
{
    if (r->code == 0 && r->diagnostic.len == 0) {
        return;
    }
    begin_field(w, "Diagnostic-Code", r->code != 0 ? "smtp;" : "X-Kidoban;");
    if (r->code != 0) {
        put_f(w, " %u", r->code);
        w->column += 4;
        if (r->status[1] != 0 || r->status[2] != 0) {
            put_f(w, " %u.%u.%u", r->status[0], r->status[1], r->status[2]);
            w->column += 8;
        }
    }
    if (r->diagnostic.len > 0) {
        put_str(w, " ");
        w->column++;
        put_field_text(w, clip(r->diagnostic, MESSAGE_DSN_DIAGNOSTIC_MAX));
    }
    put_str(w, "\r\n");
}

static void put_recipient(struct writer *w, const struct message_dsn *dsn, const struct message_dsn_recipient *r)
{
    put_str(w, "\r\n");
    put_original_recipient(w, r->orcpt);
    put_field(w, "Final-Recipient", has_8bit(r->address) ? "utf-8; " : "rfc822; ", r->address);
    put_f(w, "Action: %s\r\n", actions[r->action].word);
    if (r->status[0] != 0) {
        put_f(w, "Status: %u.%u.%u\r\n", r->status[0], r->status[1], r->status[2]);
    } else {
        put_f(w, "Status: %u.0.0\r\n", actions[r->action].class);
    }
    if (r->remote.len > 0) {
        put_field(w, "Remote-MTA", "dns; ", clip(r->remote, 255));
    }
    put_diagnostic(w, r);
    if (r->last_attempt != 0) {
        put_date_field(w, "Last-Attempt-Date", r->last_attempt, dsn->utc_offset_min);
    }
    if (r->action == MESSAGE_DSN_DELAYED && r->will_retry_until != 0) {
        put_date_field(w, "Will-Retry-Until", r->will_retry_until, dsn->utc_offset_min);
    }
}

static void put_for_programs(struct writer *w, const struct message_dsn *dsn)
{
    put_f(w, "Content-Type: message/%sdelivery-status\r\n%s\r\n", w->utf8 ? "global-" : "",
          w->utf8 ? "Content-Transfer-Encoding: 8bit\r\n" : "");
    if (dsn->envid.len > 0) {
        put_xtext_field(w, "Original-Envelope-Id", "", dsn->envid);
    }
    put_field(w, "Reporting-MTA", "dns; ", clip(dsn->hostname, 255));
    put_date_field(w, "Arrival-Date", dsn->arrived, dsn->utc_offset_min);
    for (size_t i = 0; i < dsn->recipients_count && w->err == 0; i++) {
        put_recipient(w, dsn, &dsn->recipients[i]);
    }
}

/* What is returned. */

static struct span returned(const struct message_dsn *dsn)
{
    size_t header = message_header_length(dsn->message);
    return dsn->message_full || header == 0 ? dsn->message : (struct span){dsn->message.ptr, header};
}

static void put_returned(struct writer *w, const struct message_dsn *dsn, struct span s, const char *boundary)
{
    static const char *const types[2][2] = {{"text/rfc822-headers", "message/rfc822"},
                                            {"message/global-headers", "message/global"}};
    if (s.len == 0) {
        return;
    }
    put_f(w, "\r\n--%s\r\nContent-Type: %s\r\n%s\r\n", boundary, types[w->utf8][dsn->message_full],
          has_8bit(s) ? "Content-Transfer-Encoding: 8bit\r\n" : "");
    put(w, s);
    if (s.ptr[s.len - 1] != '\n') {
        put_str(w, "\r\n");
    }
}

/* One that does not occur in s, found in one pass: which of ours are taken? false: all; then s cannot be returned. Its
 * author would have had to guess the id that the notification was given days later. */
static bool choose_boundary(const struct message_dsn *dsn, struct span s, char boundary[static BOUNDARY_MAX])
{
    char id[ID_TEXT_LEN + 1];
    uint64_t taken = 0;
    id_format(dsn->id, id);
    int len = snprintf(boundary, BOUNDARY_MAX, "kidoban-%s-", id);
    const uint8_t *hit = NULL;
    while (s.len >= (size_t)len + 2 && (hit = memmem(s.ptr, s.len - 2, boundary, (size_t)len)) != NULL) {
        unsigned n = (unsigned)(hit[len] - '0') * 10U + (unsigned)(hit[len + 1] - '0');
        taken |= n < BOUNDARIES ? UINT64_C(1) << n : 0;
        s.len -= (size_t)(hit + len - s.ptr);
        s.ptr = hit + len;
    }
    unsigned n = 0;
    while (n + 1 < BOUNDARIES && (taken & (UINT64_C(1) << n)) != 0) {
        n++;
    }
    (void)snprintf(boundary + len, BOUNDARY_MAX - (size_t)len, "%02u", n);
    return taken != UINT64_MAX;
}

/* So that the notification is shown with the message it is about (RFC 3834 section 3.1.6). */
static void put_references(struct writer *w, const struct message_dsn *dsn)
{
    struct message_header h;
    message_header_scan(returned(dsn), &h);
    struct span id = message_field_message_id(h.first[MESSAGE_FIELD_MESSAGE_ID].value);
    for (size_t i = 0; i < id.len; i++) {
        if (id.ptr[i] <= ' ' || id.ptr[i] >= 127 || id.ptr[i] == '<') {
            return;
        }
    }
    if (id.len > 0 && id.len <= 250) {
        put_f(w, "In-Reply-To: <%.*s>\r\n", (int)id.len, (const char *)id.ptr);
        put_f(w, "References: <%.*s>\r\n", (int)id.len, (const char *)id.ptr);
    }
}

static void put_top(struct writer *w, const struct message_dsn *dsn, const char *boundary, bool any_8bit)
{
    char id[ID_TEXT_LEN + 1];
    id_format(dsn->id, id);
    put_date_field(w, "Date", dsn->now, dsn->utc_offset_min);
    put_str(w, "From: Mail Delivery System <MAILER-DAEMON@");
    put(w, dsn->from_domain.len > 0 ? dsn->from_domain : dsn->hostname);
    put_str(w, ">\r\n");
    begin_field(w, "To", "<");
    put_field_text(w, dsn->sender);
    put_f(w, ">\r\nSubject: %s\r\nMessage-ID: <%s@", actions[worst(dsn)].subject, id);
    put(w, dsn->hostname);
    put_str(w, ">\r\n");
    put_references(w, dsn);
    put_str(w, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; "
               "report-type=delivery-status;\r\n");
    put_f(w, "\tboundary=\"%s\"\r\n%s\r\n", boundary, any_8bit ? "Content-Transfer-Encoding: 8bit\r\n" : "");
    put_str(w, "This is a MIME message in the form of RFC 6522.\r\n");
}

static bool needs_utf8(const struct message_dsn *dsn)
{
    for (size_t i = 0; i < dsn->recipients_count; i++) {
        if (has_8bit(dsn->recipients[i].address)) {
            return true;
        }
    }
    return dsn->smtputf8 || has_8bit(dsn->sender);
}

int message_dsn_compose(const struct message_dsn *dsn, struct buf *out, struct message_dsn_result *ret)
{
    char boundary[BOUNDARY_MAX];
    struct writer w = {.out = out, .utf8 = needs_utf8(dsn)};
    size_t before = out->len;
    struct span original = returned(dsn);
    if (!choose_boundary(dsn, original, boundary)) {
        original.len = 0;
    }
    *ret = (struct message_dsn_result){.has_8bit = w.utf8 || has_8bit(original), .smtputf8 = has_8bit(dsn->sender)};
    put_top(&w, dsn, boundary, ret->has_8bit);
    put_f(&w, "\r\n--%s\r\n", boundary);
    put_for_people(&w, dsn);
    put_f(&w, "\r\n--%s\r\n", boundary);
    put_for_programs(&w, dsn);
    put_returned(&w, dsn, original, boundary);
    put_f(&w, "\r\n--%s--\r\n", boundary);
    if (w.err < 0) {
        out->len = before;
    }
    return w.err;
}
