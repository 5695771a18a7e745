/*
 * server_dialogue.h: dialogues for the tests of the server session: what a client sends, the replies it must get. Each
 * runs whole, octet by octet, and cut at random, answered at once and later; the replies must be the same octets each
 * time.
 */
#ifndef KIDOBAN_SMTP_SERVER_DIALOGUE_H
#define KIDOBAN_SMTP_SERVER_DIALOGUE_H

#include "smtp/server_fake.h"

#define STEPS_MAX 16

struct step {
    const char *send;
    size_t len;
    const char *expect; /* beginnings of the replies, divided by '|'; of a reply in several lines the last counts */
};
#define C(s, e)                                                                                                        \
    {                                                                                                                  \
        (s), sizeof(s) - 1, (e)                                                                                        \
    }

struct dialogue {
    const char *name;
    void (*setup)(struct fake *f);
    struct step steps[STEPS_MAX];
    const char *message; /* the last accepted one; NULL: none was */
    bool closed;
    int event; /* must have been seen; 0: see event_unknown */
};

#define USER_PASS   "AHVzZXIAcGFzcw==" /* NUL user NUL pass */
#define HELLO       C("EHLO client.example\r\n", "250 HELP")
#define SECURE      HELLO, C("STARTTLS\r\n", "220 2.0.0"), HELLO
#define LOGIN       SECURE, C("AUTH PLAIN " USER_PASS "\r\n", "235 2.7.0")
#define ENVELOPE    C("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n", "250 2.1.0|250 2.1.5")
#define DATA_OPEN   LOGIN, ENVELOPE, C("DATA\r\n", "354 ")
#define QUIT        C("QUIT\r\n", "221 2.0.0")
#define ALIVE       C("NOOP\r\n", "250 2.0.0")
#define X10(s)      s s s s s s s s s s
#define X100(s)     X10(X10(s))
#define TRANSACTION HELLO, ENVELOPE
#define DATA_RELAY  TRANSACTION, C("DATA\r\n", "354 ")

/* Setups: TLS from the first octet; a network that may relay, with its variants; small limits. */
void implicit(struct fake *f);
void relay(struct fake *f);
void relay_repair(struct fake *f);
void relay_small(struct fake *f);
void few(struct fake *f);
void short_lines(struct fake *f);

/* The test fails with the dialogue's name when one goes otherwise. */
void dialogues_run(const struct dialogue *dialogues, size_t count);
/* A test program that is these and nothing else: its exit status. */
int dialogues_main(const struct dialogue *dialogues, size_t count);

/* For what time decides, so that it cannot be cut at will. */
void dialogue_start(struct fake *f, void (*setup)(struct fake *f)); /* setup: may be NULL; fake_fini() ends it */
void dialogue_send(struct fake *f, const char *text);               /* f->out has only the replies to this */
void check_replies(const char *name, struct span out, const char *expect);

#endif
