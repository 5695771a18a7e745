/*
 * What an operator gets wrong, and what we say to it: each row is a text and every complaint about it, word for word
 * and with its place. A mended complaint leaves a row here.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "config/config.h"

#define TEXT(text) text, sizeof(text) - 1
/* What follows three good lines stands in line 4, inside of submission. */
#define BELOW(text) TEXT("submission:\n  hostname: mail.example.ne.jp\n  tls: {certificate: /c, key: /k}\n" text)
/* What follows stands in line 2, beside submission. */
#define BESIDE(text) TEXT("submission: {hostname: m.example, tls: {certificate: /c, key: /k}}\n" text)

struct row {
    const char *text;
    size_t len;
    const char *complaints;
};

static const struct row whole[] = {
    {TEXT(""), "f:1:1: the file is empty; see kidoban.yaml(5) for the smallest useful one\n"},
    {TEXT("# nothing\n"), "f:1:1: the file is empty; see kidoban.yaml(5) for the smallest useful one\n"},
    {TEXT("hello\n"), "f:1:1: the file should be a map of sections (submission:, routes: ...)\n"},
    {TEXT("- a\n"
          "- b\n"),
     "f:1:1: the file should be a map of sections (submission:, routes: ...)\n"},
    {TEXT("submission:\n"
          "  listen: [a, b\n"
          "routes: []\n"),
     "f:3:7: not YAML: did not find expected ',' or ']' (began in line 2); check indentation, brackets and quotes\n"},
    {TEXT("submission: {hostname: a\n"),
     "f:2:1: not YAML: did not find expected ',' or '}' (began in line 1); check indentation, brackets and quotes\n"},
    {TEXT("submission:\n"
          "\011hostname: a\n"),
     "f:2:1: not YAML: found character that cannot start any token; check indentation, brackets and quotes\n"},
    {TEXT("submission:\n"
          "  hostname: a\n"
          "    tls: b\n"),
     "f:3:8: not YAML: mapping values are not allowed in this context; check indentation, brackets and quotes\n"},
    {TEXT("operator:\n"
          "  name: \"unclosed\n"),
     "f:3:1: not YAML: found unexpected end of stream (began in line 2); check indentation, brackets and quotes\n"},
    {TEXT("a: 1\n"
          "---\n"
          "b: 2\n"),
     "f:2:1: a second document; a configuration is one\n"},
    {TEXT("operator: &o\n"
          "  name: x\n"),
     "f:1:11: anchors (&name) are not taken; write the value where it is needed\n"},
    {TEXT("operator: &o {name: x}\n"
          "routes: *o\n"),
     "f:1:11: anchors (&name) are not taken; write the value where it is needed\n"
     "f:2:9: aliases (*name) are not taken; write the value here\n"},
    {TEXT("operator: *o\n"), "f:1:11: aliases (*name) are not taken; write the value here\n"},
    {TEXT("operator:\n"
          "  <<: {name: x}\n"
          "submission: {hostname: m.example, tls: {certificate: /c, key: /k}}\n"),
     "f:2:3: unknown key \"<<\"; here go: name, domains, help_url\n"},
    {TEXT("operator: {name: !!str x}\n"), "f:1:18: tags (!name) are not taken; leave it out\n"},
    {TEXT("!map {a: b}\n"), "f:1:1: tags (!name) are not taken; leave it out\n"},
    {TEXT("&k operator: {name: x}\n"), "f:1:1: anchors (&name) are not taken; write the value where it is needed\n"},
    {TEXT("{a: b}: c\n"), "f:1:1: a key must be a word\n"},
    {TEXT("? [a]\n"
          ": c\n"),
     "f:1:3: a key must be a word\n"},
    {TEXT("operator: {name: x}\n"
          "spool: {}\n"
          "operator: {name: y}\n"),
     "f:3:1: \"operator\" is there twice; the first is in line 1: keep one\n"},
    {TEXT("spool:\n"
          "  reserve: 1M\n"
          "  lifetime: 1d\n"
          "  reserve: 2M\n"
          "  lifetime: 2d\n"),
     "f:4:3: \"reserve\" is there twice; the first is in line 2: keep one\n"
     "f:5:3: \"lifetime\" is there twice; the first is in line 3: keep one\n"},
    {TEXT("a: [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n"), "f:1:20: nested too deep\n"},
    {TEXT("operator: {name: \"\\xff\"}\n"),
     "f:1:1: neither \"submission\" nor \"gate\" is there; write one or both, like submission: {hostname: "
     "mail.example.ne.jp, tls: {certificate: FILE, key: FILE}}\n"},
    {TEXT("operator:\n"
          "  name: \377\376\n"),
     "f:2:9: not YAML: invalid leading UTF-8 octet; a configuration is UTF-8 text\n"},
    {TEXT("operator:\n"
          "  name: a\000b\n"),
     "f:2:10: not YAML: control characters are not allowed; a configuration is UTF-8 text\n"},
    {TEXT("operator: {name: \"a\\0b\"}\n"), "f:1:18: a value must not hold a NUL\n"},
    {TEXT("\"a\\0\": 1\n"), "f:1:1: a key must not hold a NUL\n"},
    {TEXT("\377\376a\000:\000"), "f:1:1: not YAML: invalid leading UTF-8 octet; a configuration is UTF-8 text\n"},
    {TEXT("%YAML 9.9\n"
          "---\n"
          "a: 1\n"),
     "f:1:1: not YAML: found incompatible YAML document; check indentation, brackets and quotes\n"},
    {TEXT("{}\n"), "f:1:1: neither \"submission\" nor \"gate\" is there; write one or both, like submission: "
                   "{hostname: mail.example.ne.jp, tls: {certificate: FILE, key: FILE}}\n"},
    {TEXT("submission: {tls: {certificate: /c, key: /k}}\n"),
     "f:1:13: \"hostname\" is missing; write it like hostname: mail.example.ne.jp\n"},
    {TEXT("submission:\n"
          "  hostname: mail.example.ne.jp\n"),
     "f:2:3: \"tls\" is missing; write it like tls: {certificate: /etc/kidoban/tls/fullchain.pem, key: "
     "/etc/kidoban/tls/key.pem}\n"},
    {TEXT("submission:\n"
          "  hostname: mail.example.ne.jp\n"
          "  tls:\n"
          "    certificate: /c\n"),
     "f:4:5: \"key\" is missing; write it like key: /etc/kidoban/tls/key.pem\n"},
    {TEXT("submission:\n"
          "  hostname: mail.example.ne.jp\n"
          "  tls:\n"),
     "f:3:7: \"tls\" is a value; it should be a map of keys\n"},
    {TEXT("submission: {hostname: m.example, tls: [a]}\n"), "f:1:40: \"tls\" is a list; it should be a map of keys\n"},
    {TEXT("submission: {hostname: mail, tls: {certificate: /c, key: /k}}\n"),
     "f:1:24: \"mail\" is not a fully qualified domain name; write it like mail.example.ne.jp\n"},
    {TEXT("submission: {hostname: 192.0.2.1, tls: {certificate: /c, key: /k}}\n"),
     "f:1:24: \"192.0.2.1\" is not a fully qualified domain name; write it like mail.example.ne.jp\n"},
    {TEXT("submission: {hostname: my_mail.example, tls: {certificate: /c, key: /k}}\n"),
     "f:1:24: \"my_mail.example\" is not a fully qualified domain name; write it like mail.example.ne.jp\n"},
    {TEXT("submission: {hostname: mail..example, tls: {certificate: /c, key: /k}}\n"),
     "f:1:24: \"mail..example\" is not a fully qualified domain name; write it like mail.example.ne.jp\n"},
    {TEXT("submission: {hostname: -mail.example, tls: {certificate: /c, key: /k}}\n"),
     "f:1:24: \"-mail.example\" is not a fully qualified domain name; write it like mail.example.ne.jp\n"},
    {TEXT("submission: {hostname: ~, tls: {certificate: /c, key: /k}}\n"),
     "f:1:24: \"~\" is not a fully qualified domain name; write it like mail.example.ne.jp\n"},
    {TEXT("submission: {hostname: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example, tls: "
          "{certificate: /c, key: /k}}\n"),
     "f:1:24: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example\" is not a fully qualified "
     "domain name; write it like mail.example.ne.jp\n"},
    {TEXT("submission: {hostname: m.example, tls: {certificate: c.pem, key: ./k.pem}}\n"),
     "f:1:54: \"c.pem\" is not a path from the root; write it like /etc/kidoban/tls/fullchain.pem\n"
     "f:1:66: \"./k.pem\" is not a path from the root; write it like /etc/kidoban/tls/key.pem\n"},
};

static const struct row submission[] = {
    {BELOW("  tlss: {}\n"), "f:4:3: unknown key \"tlss\"; did you mean \"tls\"?\n"},
    {BELOW("  lisen: ['[::]:587']\n"), "f:4:3: unknown key \"lisen\"; did you mean \"listen\"?\n"},
    {BELOW("  zzzzzzzz: 1\n"), "f:4:3: unknown key \"zzzzzzzz\"; here go: hostname, listen, workers, tls, limits, "
                               "timeouts, auth, senders, relay_networks\n"},
    {BELOW("  \"a\\nb\": 1\n"), "f:4:3: unknown key \"a?b\"; here go: hostname, listen, workers, tls, limits, "
                                "timeouts, auth, senders, relay_networks\n"},
    {BELOW("  listen: []\n"), "f:4:11: \"listen\" is empty; leave it out for [\"[::]:587\", \"[::]:465\"]\n"},
    {BELOW("  listen:\n"),
     "f:4:10: \"\" is not an address to listen on; write it like \"[::]:587\", \"192.0.2.1:465\" or \":587\"\n"},
    {BELOW("  listen: 587\n"),
     "f:4:11: \"587\" is not an address to listen on; write it like \"[::]:587\", \"192.0.2.1:465\" or \":587\"\n"},
    {BELOW("  listen: ['[::]:0']\n"),
     "f:4:12: \"[::]:0\" is not an address to listen on; write it like \"[::]:587\", \"192.0.2.1:465\" or \":587\"\n"},
    {BELOW("  listen: ['[::]:65536']\n"), "f:4:12: \"[::]:65536\" is not an address to listen on; write it like "
                                          "\"[::]:587\", \"192.0.2.1:465\" or \":587\"\n"},
    {BELOW("  listen: ['::1:587']\n"),
     "f:4:12: \"::1:587\" is not an address to listen on; write it like \"[::]:587\", \"192.0.2.1:465\" or \":587\"\n"},
    {BELOW("  listen: [mail.example.org:587]\n"), "f:4:12: \"mail.example.org:587\" is not an address to listen on; "
                                                  "write it like \"[::]:587\", \"192.0.2.1:465\" or \":587\"\n"},
    {BELOW("  listen: ['[::]:587', '[::]:587']\n"),
     "f:4:24: this address and port are taken by the one in line 4; keep one of them\n"},
    {BELOW("  listen: ['192.0.2.1:587', ':587']\n"),
     "f:4:29: this address and port are taken by the one in line 4; keep one of them\n"},
    {BELOW("  listen: ['0.0.0.0:465', '192.0.2.7:465', '[2001:db8::1]:465']\n"),
     "f:4:27: this address and port are taken by the one in line 4; keep one of them\n"},
    {BELOW("  listen: [[a]]\n"), "f:4:12: an element of \"listen\" should be an address like \"[::]:587\", or a map\n"},
    {BELOW("  listen: [{address: ':587', tls: yes}]\n"),
     "f:4:35: \"tls\" should be starttls or implicit, not \"yes\"\n"},
    {BELOW("  listen: [{tls: implicit}]\n"), "f:4:12: \"address\" is missing; write it like address: \"[::]:587\"\n"},
    {BELOW("  listen: [{address: ':587', port: 3}]\n"),
     "f:4:30: unknown key \"port\"; here go: address, tls, proxy_protocol_from, repair_bare_lf\n"},
    {BELOW("  listen: [{address: ':587', proxy_protocol_from: 192.0.2.1/24}]\n"),
     "f:4:51: \"192.0.2.1/24\" is not a prefix (address/length, no host bits set); write it like 192.0.2.8/32\n"},
    {BELOW("  listen: [{address: ':587', proxy_protocol_from: [2001:db8::/129, 10.0.0.0/33, 10.0.0.0/, x, []]}]\n"),
     "f:4:52: \"2001:db8::/129\" is not a prefix (address/length, no host bits set); write it like 192.0.2.8/32\n"
     "f:4:68: \"10.0.0.0/33\" is not a prefix (address/length, no host bits set); write it like 192.0.2.8/32\n"
     "f:4:81: \"10.0.0.0/\" is not a prefix (address/length, no host bits set); write it like 192.0.2.8/32\n"
     "f:4:92: \"x\" is not a prefix (address/length, no host bits set); write it like 192.0.2.8/32\n"
     "f:4:95: \"proxy_protocol_from\" is a list; it should be a value, like 192.0.2.8/32\n"},
    {BELOW("  listen: [{address: ':587', repair_bare_lf: maybe}]\n"),
     "f:4:46: \"repair_bare_lf\" should be true or false, not \"maybe\"\n"},
    {BELOW("  workers: two\n"), "f:4:12: \"two\" is not a whole number; write it like 2\n"},
    {BELOW("  workers: 33\n"), "f:4:12: \"workers\" is 33; it should be from 0 to 31\n"},
    {BELOW("  workers: -1\n"), "f:4:12: \"-1\" is not a whole number; write it like 2\n"},
    {BELOW("  workers: 99999999999999999999\n"),
     "f:4:12: \"99999999999999999999\" is not a whole number; write it like 2\n"},
    {BELOW("  limits: {message_size: 50MB}\n"),
     "f:4:26: \"50MB\" is not a size (octets, or with k, M, G); write it like 50M\n"},
    {BELOW("  limits: {message_size: 1k}\n"), "f:4:26: \"message_size\" is 1k; it should be from 64k to 4G\n"},
    {BELOW("  limits: {message_size: 5G}\n"), "f:4:26: \"message_size\" is 5G; it should be from 64k to 4G\n"},
    {BELOW("  limits: {message_size: 99999999999G}\n"),
     "f:4:26: \"99999999999G\" is not a size (octets, or with k, M, G); write it like 50M\n"},
    {BELOW("  limits: {recipients: 0}\n"), "f:4:24: \"recipients\" is 0; it should be from 1 to 1000\n"},
    {BELOW("  limits: {recipients: 1_000}\n"), "f:4:24: \"1_000\" is not a whole number; write it like 100\n"},
    {BELOW("  limits: {recipients: 1e3}\n"), "f:4:24: \"1e3\" is not a whole number; write it like 100\n"},
    {BELOW("  limits: {recipients: []}\n"), "f:4:24: \"recipients\" is a list; it should be a value, like 100\n"},
    {BELOW("  limits: 5\n"), "f:4:11: \"limits\" is a value; it should be a map of keys\n"},
    {BELOW("  timeouts: {command: 5}\n"),
     "f:4:23: \"5\" is not a time (a number with ms, s, m, h or d); write it like 5m\n"},
    {BELOW("  timeouts: {command: 5 minutes}\n"),
     "f:4:23: \"5 minutes\" is not a time (a number with ms, s, m, h or d); write it like 5m\n"},
    {BELOW("  timeouts: {command: 2d}\n"), "f:4:23: \"command\" is 2d; it should be from 100ms to 1d\n"},
    {BELOW("  timeouts: {data: 10ms}\n"), "f:4:20: \"data\" is 10ms; it should be from 100ms to 1d\n"},
    {BELOW("  timeouts: {comand: 5m}\n"), "f:4:14: unknown key \"comand\"; did you mean \"command\"?\n"},
    {BELOW("  auth: {mechanisms: [PLAIN, CRAM-MD5]}\n"),
     "f:4:30: \"CRAM-MD5\" is not a mechanism we have; they are PLAIN, LOGIN, SCRAM-SHA-1, SCRAM-SHA-1-PLUS, "
     "SCRAM-SHA-256, SCRAM-SHA-256-PLUS, EXTERNAL\n"},
    {BELOW("  auth: {mechanisms: plain}\n"),
     "f:4:22: \"plain\" is not a mechanism we have; they are PLAIN, LOGIN, SCRAM-SHA-1, SCRAM-SHA-1-PLUS, "
     "SCRAM-SHA-256, SCRAM-SHA-256-PLUS, EXTERNAL\n"},
    {BELOW("  auth: {mechanisms: []}\n"),
     "f:4:22: \"mechanisms\" is empty: nobody could log in; leave it out for the standard ones\n"},
    {BELOW("  auth: {mechanisms: {PLAIN: 1}}\n"),
     "f:4:22: \"a map\" is not a mechanism we have; they are PLAIN, LOGIN, SCRAM-SHA-1, SCRAM-SHA-1-PLUS, "
     "SCRAM-SHA-256, SCRAM-SHA-256-PLUS, EXTERNAL\n"},
    {BELOW("  senders: {mode: off}\n"), "f:4:19: \"mode\" should be report or enforce, not \"off\"\n"},
    {BELOW("  senders: {plus_addressing: 1}\n"), "f:4:30: \"plus_addressing\" should be true or false, not \"1\"\n"},
    {BELOW("  relay_networks: [web]\n"),
     "f:4:20: an element of \"relay_networks\" should be a map, like {name: web servers, prefixes: [192.0.2.0/28]}\n"},
    {BELOW("  relay_networks: [{name: web}]\n"),
     "f:4:20: \"prefixes\" is missing; write it like prefixes: 192.0.2.0/28\n"},
    {BELOW("  relay_networks: [{name: web, prefixes: [192.0.2.5/28]}]\n"),
     "f:4:43: \"192.0.2.5/28\" is not a prefix (address/length, no host bits set); write it like 192.0.2.0/28\n"},
    {BELOW("  relay_networks: [{name: '', prefixes: [192.0.2.0/28]}]\n"),
     "f:4:27: \"name\" is empty; write it like web servers\n"},
    {BELOW("  relay_networks: [{name: web, prefixes: []}]\n"),
     "f:4:42: \"prefixes\" is empty; write it like 192.0.2.0/28\n"},
    {BELOW("  relay_networks:\n"
           "    - {name: a, prefixes: 192.0.2.0/28}\n"
           "    - {name: a, prefixes: 192.0.3.0/28}\n"),
     "f:6:7: two networks are called \"a\"; each needs its own name\n"},
    {BELOW("  relay_networks: {name: all, prefixes: [0.0.0.0/0, '::/0']}\n"),
     "f:4:19: a prefix of length 0 would let everybody relay; name your own networks, like 192.0.2.0/28\n"
     "f:4:19: a prefix of length 0 would let everybody relay; name your own networks, like 192.0.2.0/28\n"},
};

static const struct row beside[] = {
    {BESIDE("submision: {}\n"), "f:2:1: unknown key \"submision\"; did you mean \"submission\"?\n"},
    {BESIDE("operators: {}\n"), "f:2:1: unknown key \"operators\"; did you mean \"operator\"?\n"},
    {BESIDE("operator: {name: [a]}\n"), "f:2:18: \"name\" is a list; it should be a value, like Example Internet\n"},
    {BESIDE("operator: {name: ''}\n"), "f:2:18: \"name\" is empty; write it like Example Internet\n"},
    {BESIDE("operator: {name: \"a\\tb\"}\n"), "f:2:18: \"name\" holds a control character\n"},
    {BESIDE("operator: {help_url: mail.example.org}\n"),
     "f:2:22: \"mail.example.org\" is not a URL of at most 200 ASCII characters; write it like "
     "https://mail.example.ne.jp/\n"},
    {BESIDE("operator: {help_url: 'https://a b'}\n"), "f:2:22: \"https://a b\" is not a URL of at most 200 ASCII "
                                                      "characters; write it like https://mail.example.ne.jp/\n"},
    {BESIDE("operator: {help_url: ftp://x}\n"),
     "f:2:22: \"ftp://x\" is not a URL of at most 200 ASCII characters; write it like https://mail.example.ne.jp/\n"},
    {BESIDE("operator: {domains: [ok.example, 'not a domain']}\n"),
     "f:2:34: \"not a domain\" is not a domain name; write it like [example.ne.jp]\n"},
    {BESIDE("operator: {domains: {a: b}}\n"),
     "f:2:21: \"domains\" is a map; it should be a value, like [example.ne.jp]\n"},
    {BESIDE("operator: {domains: [192.0.2.1]}\n"),
     "f:2:22: \"192.0.2.1\" is not a domain name; write it like [example.ne.jp]\n"},
    {BESIDE("operator: 3\n"), "f:2:11: \"operator\" is a value; it should be a map of keys\n"},
    {BESIDE("accounts: {store: ldap}\n"), "f:2:19: \"store\" should be sqlite, not \"ldap\"\n"},
    {BESIDE("accounts: {directory: x}\n"),
     "f:2:23: \"x\" is not a path from the root; write it like /var/lib/kidoban/vault\n"},
    {BESIDE("accounts: {guess_delay: 20s}\n"),
     "f:2:25: accounts.guess_delay is longer than accounts.guess_delay_max; make it shorter, or the other longer\n"},
    {BESIDE("accounts: {guess_delay: 20s, guess_delay_max: 10s}\n"),
     "f:2:25: accounts.guess_delay is longer than accounts.guess_delay_max; make it shorter, or the other longer\n"},
    {BESIDE("accounts: {cache: 2d}\n"), "f:2:19: \"cache\" is 2d; it should be from 0s to 1d\n"},
    {BESIDE("accounts: {guesses_free: 0}\n"), "f:2:26: \"guesses_free\" is 0; it should be from 1 to 1000\n"},
    {BESIDE("limits: [hourly]\n"),
     "f:2:10: an element of \"limits\" should be a map, like {name: hourly, windows: [200/1h]}\n"},
    {BESIDE("limits: [{windows: [1/1h]}]\n"), "f:2:10: \"name\" is missing; write it like name: hourly\n"},
    {BESIDE("limits: [{name: a}]\n"), "f:2:10: \"windows\" is missing; write it like windows: [200/1h, 1000/1d]\n"},
    {BESIDE("limits: [{name: a, windows: []}]\n"), "f:2:29: \"windows\" is empty; write it like [200/1h, 1000/1d]\n"},
    {BESIDE("limits: [{name: a, windows: [100]}]\n"),
     "f:2:30: not a number in a time (1 to 100000000 in 1s to 31d); write it like [200/1h, 1000/1d]\n"},
    {BESIDE("limits: [{name: a, windows: [0/1h, 1/0s, 1/32d, x/1h, 1/h, 200000000/1h, [1]]}]\n"),
     "f:2:30: not a number in a time (1 to 100000000 in 1s to 31d); write it like [200/1h, 1000/1d]\n"
     "f:2:36: not a number in a time (1 to 100000000 in 1s to 31d); write it like [200/1h, 1000/1d]\n"
     "f:2:42: not a number in a time (1 to 100000000 in 1s to 31d); write it like [200/1h, 1000/1d]\n"
     "f:2:49: not a number in a time (1 to 100000000 in 1s to 31d); write it like [200/1h, 1000/1d]\n"
     "f:2:55: not a number in a time (1 to 100000000 in 1s to 31d); write it like [200/1h, 1000/1d]\n"
     "f:2:60: not a number in a time (1 to 100000000 in 1s to 31d); write it like [200/1h, 1000/1d]\n"
     "f:2:74: not a number in a time (1 to 100000000 in 1s to 31d); write it like [200/1h, 1000/1d]\n"},
    {BESIDE("limits: [{name: a, windows: [1/1h]}, {name: a, windows: [1/1h]}]\n"),
     "f:2:38: two limits are called \"a\"; each needs its own name\n"},
    {BESIDE("limits: [{name: a, windows: [1/1h], per: user}]\n"),
     "f:2:42: \"per\" should be account or network, not \"user\"\n"},
    {BESIDE("limits: [{name: a, windows: [1/1h], count: bytes}]\n"),
     "f:2:44: \"count\" should be messages or recipients, not \"bytes\"\n"},
    {BESIDE("limits: [{name: a, windows: [1/1h], action: drop}]\n"),
     "f:2:45: \"action\" should be defer, reject or hold, not \"drop\"\n"},
    {BESIDE("limits: [{name: a, windows: [1/1h], actoin: hold}]\n"),
     "f:2:37: unknown key \"actoin\"; did you mean \"action\"?\n"},
    {BESIDE("spool: {retry: {first: 5h}}\n"),
     "f:2:24: spool.retry.first is longer than spool.retry.max; make it shorter, or the other longer\n"},
    {BESIDE("spool:\n"
            "  retry:\n"
            "    first: 2h\n"
            "    max: 1h\n"),
     "f:4:12: spool.retry.first is longer than spool.retry.max; make it shorter, or the other longer\n"},
    {BESIDE("spool: {lifetime: 1h}\n"),
     "f:2:8: spool.delay_warning is longer than spool.lifetime; make it shorter, or the other longer\n"},
    {BESIDE("spool: {delay_warning: 6d}\n"),
     "f:2:24: spool.delay_warning is longer than spool.lifetime; make it shorter, or the other longer\n"},
    {BESIDE("spool: {lifetime: 61d}\n"), "f:2:19: \"lifetime\" is 61d; it should be from 1s to 60d\n"},
    {BESIDE("spool: {reserve: '-1'}\n"),
     "f:2:18: \"-1\" is not a size (octets, or with k, M, G); write it like 256M\n"},
    {BESIDE("spool: {directory: ''}\n"),
     "f:2:20: \"\" is not a path from the root; write it like /var/lib/kidoban/spool\n"},
    {BESIDE("delivery: {workers: 0}\n"), "f:2:21: \"workers\" is 0; it should be from 1 to 32\n"},
    {BESIDE("delivery: {tls: yes}\n"), "f:2:17: \"tls\" should be none, may, must or verify, not \"yes\"\n"},
    {BESIDE("delivery: {source_addresses: [192.0.2.300]}\n"),
     "f:2:31: \"192.0.2.300\" is not an address; write it like [192.0.2.25, \"2001:db8::25\"]\n"},
    {BESIDE("delivery: {resolver: {forward: [dns.example]}}\n"),
     "f:2:33: \"dns.example\" is not a resolver's address; write it like [192.0.2.53, \"127.0.0.1@5353\"]\n"},
    {BESIDE("delivery: {resolver: {forward: ['192.0.2.53@0']}}\n"),
     "f:2:33: \"192.0.2.53@0\" is not a resolver's address; write it like [192.0.2.53, \"127.0.0.1@5353\"]\n"},
    {BESIDE("delivery: {resolver: {forward: '192.0.2.53:53'}}\n"),
     "f:2:32: \"192.0.2.53:53\" is not a resolver's address; write it like [192.0.2.53, \"127.0.0.1@5353\"]\n"},
    {BESIDE("delivery: {timeouts: {idle: 2h}}\n"), "f:2:29: \"idle\" is 2h; it should be from 0s to 1h\n"},
    {BESIDE("routes: smarthost\n"), "f:2:9: an element of \"routes\" should be a map, like {domain: \"*\", via: mx}\n"},
    {BESIDE("routes: ['*']\n"), "f:2:10: an element of \"routes\" should be a map, like {domain: \"*\", via: mx}\n"},
    {BESIDE("routes: [{via: mx}]\n"),
     "f:2:10: \"domain\" is missing; write it like domain: example.ne.jp, .example.ne.jp or \"*\"\n"},
    {BESIDE("routes: [{domain: '*'}]\n"), "f:2:10: \"via\" is missing; write it like via: mx\n"},
    {BESIDE("routes: [{domain: '*', to: 'a.example:25'}]\n"), "f:2:10: \"via\" is missing; write it like via: mx\n"},
    {BESIDE("routes: [{domain: '*', via: smtp}]\n"),
     "f:2:29: \"via\" should be mx, smarthost, lmtp or error, not \"smtp\"\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost}]\n"),
     "f:2:10: a route via smarthost needs \"to\", like \"smtp.example.net:587\"\n"},
    {BESIDE("routes: [{domain: '*', via: mx, to: mx.example}]\n"),
     "f:2:37: a route via mx takes no \"to\"; use via: smarthost or via: lmtp\n"},
    {BESIDE("routes: [{domain: '*', via: lmtp, to: 'unix:lmtp'}]\n"),
     "f:2:39: \"unix:lmtp\" is not a next hop; write it like unix:/run/dovecot/lmtp or \"lmtp.example.net:24\"\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: 'unix:/run/x'}]\n"),
     "f:2:44: \"unix:/run/x\" is not a next hop; write it like \"smtp.example.net:587\"\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: 'a.example:0'}]\n"),
     "f:2:44: \"a.example:0\" is not a next hop; write it like \"smtp.example.net:587\"\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: ':25'}]\n"),
     "f:2:44: \":25\" is not a next hop; write it like \"smtp.example.net:587\"\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: 'a.example:'}]\n"),
     "f:2:44: \"a.example:\" is not a next hop; write it like \"smtp.example.net:587\"\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: '[]:25'}]\n"),
     "f:2:44: \"[]:25\" is not a next hop; write it like \"smtp.example.net:587\"\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: '[a.example]:25'}]\n"),
     "f:2:44: \"[a.example]:25\" is not a next hop; write it like \"smtp.example.net:587\"\n"},
    {BESIDE("routes: [{domain: '*', via: lmtp, to: "
            "'unix:/"
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
            "xxxxxxxxxxxxxx'}]\n"),
     "f:2:39: "
     "\"unix:/"
     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
     "x\" is not a next hop; write it like unix:/run/dovecot/lmtp or \"lmtp.example.net:24\"\n"},
    {BESIDE("routes: [{domain: '*.example.org', via: mx}]\n"),
     "f:2:19: \"*.example.org\" is not a domain; write it like example.ne.jp, .example.ne.jp or \"*\"\n"},
    {BESIDE("routes: [{domain: '.', via: mx}]\n"),
     "f:2:19: \".\" is not a domain; write it like example.ne.jp, .example.ne.jp or \"*\"\n"},
    {BESIDE("routes: [{domain: a b, via: mx}]\n"),
     "f:2:19: \"a b\" is not a domain; write it like example.ne.jp, .example.ne.jp or \"*\"\n"},
    {BESIDE("routes:\n"
            "  - {domain: example.org, via: mx}\n"
            "  - {domain: Example.ORG, via: error}\n"),
     "f:4:5: there are two routes for \"example.org\", the other in line 3; keep one\n"},
    {BESIDE("routes: [{domain: a.example, via: mx}, {domain: a.example, via: mx}, {domain: a.example, via: mx}]\n"),
     "f:2:40: there are two routes for \"a.example\", the other in line 2; keep one\n"
     "f:2:70: there are two routes for \"a.example\", the other in line 2; keep one\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: s.example, username: u}]\n"),
     "f:2:10: \"username\" and \"password_file\" go together; write both or none\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: s.example, password_file: /p}]\n"),
     "f:2:10: \"username\" and \"password_file\" go together; write both or none\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: s.example, username: u, password_file: /p, tls: may}]\n"),
     "f:2:10: a password is never sent in clear; write tls: must or tls: verify\n"},
    {BESIDE("routes: [{domain: '*', via: lmtp, to: s.example, username: u, password_file: /p}]\n"),
     "f:2:10: a login is for routes via smarthost only\n"},
    {BESIDE("routes: [{domain: '*', via: mx, words: no}]\n"), "f:2:10: \"words\" are for routes via error only\n"},
    {BESIDE("routes: [{domain: '*', via: mx, lookup_mx: yes}]\n"),
     "f:2:10: \"lookup_mx\" is for routes via smarthost only\n"},
    {BESIDE("routes: [{domain: '*', via: smarthost, to: s.example, password: secret}]\n"),
     "f:2:55: unknown key \"password\"; here go: domain, via, to, tls, lookup_mx, username, password_file, words\n"},
    {BESIDE("processes: {log: {level: verbose}}\n"),
     "f:2:26: \"level\" should be debug, info, warn or error, not \"verbose\"\n"},
    {BESIDE("processes: {log: {events_kept: 0}}\n"), "f:2:32: \"events_kept\" is 0; it should be from 1 to 1000\n"},
    {BESIDE("processes: {sandbox: disabled}\n"), "f:2:22: \"sandbox\" should be true or false, not \"disabled\"\n"},
    {BESIDE("processes: {runtime_directory: run}\n"),
     "f:2:32: \"run\" is not a path from the root; write it like /run/kidoban\n"},
    {BESIDE("processes: {user_prefix: {}}\n"),
     "f:2:26: \"user_prefix\" is a map; it should be a value, like kidoban-\n"},
    {BESIDE("operator: {name: []}\n"
            "spool: {lifetime: 5}\n"
            "delivery: {tls: no}\n"),
     "f:2:18: \"name\" is a list; it should be a value, like Example Internet\n"
     "f:3:19: \"5\" is not a time (a number with ms, s, m, h or d); write it like 5d\n"
     "f:4:17: \"tls\" should be none, may, must or verify, not \"no\"\n"},
    {BESIDE("operator: {name: "
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
            "xxxxxxxxxxxxxxxxxxxxxxxx, help_url: "
            "'\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251"
            "\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251"
            "\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251"
            "\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251"
            "\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251"
            "\303\251\303\251\303\251\303\251\303\251'}\n"),
     "f:2:160: "
     "\"\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303"
     "\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303"
     "\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303"
     "\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303\251\303"
     "\251\303\251\303\251\303\251\303\251\" is not a URL of at most 200 ASCII characters; write it like "
     "https://mail.example.ne.jp/\n"},
};

static void check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct config *c = NULL;
        struct config_complaints complaints = {0};
        struct buf words;
        buf_init(&words, 65536);
        struct span text = {(const uint8_t *)rows[i].text, rows[i].len};
        assert_int_equal(config_load(text, "f", &c, &complaints), -EINVAL);
        assert_null(c);
        assert_int_equal(config_complaints_format(&complaints, &words), 0);
        assert_int_equal(buf_append(&words, "", 1), 0);
        assert_string_equal((const char *)words.data, rows[i].complaints);
        config_complaints_fini(&complaints);
        buf_fini(&words);
    }
}

static void test_whole(void **state)
{
    (void)state;
    check_rows(whole, sizeof(whole) / sizeof(whole[0]));
}

static void test_submission(void **state)
{
    (void)state;
    check_rows(submission, sizeof(submission) / sizeof(submission[0]));
}

static void test_beside(void **state)
{
    (void)state;
    check_rows(beside, sizeof(beside) / sizeof(beside[0]));
}

/* A file with more mistakes than anybody reads: the first ones, in the file's order, and how many more. */
static void test_many(void **state)
{
    (void)state;
    struct buf text, words;
    buf_init(&text, 65536);
    buf_init(&words, 65536);
    for (int i = 0; i < CONFIG_COMPLAINTS_MAX + 7; i++) {
        assert_int_equal(buf_printf(&text, "zzzzzzzzzzz%d: 1\n", i), 0);
    }
    struct config *c = NULL;
    struct config_complaints complaints = {0};
    assert_int_equal(config_load(buf_span(&text), "f", &c, &complaints), -EINVAL);
    assert_int_equal(complaints.count, CONFIG_COMPLAINTS_MAX);
    assert_int_equal(complaints.left_out, 7);
    assert_int_equal(config_complaints_format(&complaints, &words), 0);
    assert_int_equal(buf_append(&words, "", 1), 0);
    assert_memory_equal(words.data, "f:1:1: ", 7);
    assert_non_null(strstr((const char *)words.data, "\nand 7 more\n"));
    config_complaints_fini(&complaints);
    buf_fini(&text);
    buf_fini(&words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_submission),
        cmocka_unit_test(test_beside),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
