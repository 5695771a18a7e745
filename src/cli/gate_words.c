/*
 * The words of `kidoban gate impact`: for the operator, and for those whom it concerns.
 */
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "cli/gate_impact.h"

bool words_language(const char *name, enum language *ret)
{
    bool ja = false;
    if (name == NULL) {
        const char *locale = setlocale(LC_MESSAGES, NULL);
        ja = locale != NULL && strncmp(locale, "ja", 2) == 0;
    } else if (strcmp(name, "ja") == 0) {
        ja = true;
    } else if (strcmp(name, "en") != 0) {
        cli_error("--lang should be ja or en, not \"%s\"", name);
        return false;
    }
    *ret = ja ? LANGUAGE_JA : LANGUAGE_EN;
    return true;
}

const char *words_kind(enum behaviour_kind kind, enum language l)
{
    static const char *const words[BEHAVIOUR_KINDS][LANGUAGES] = {
        [BEHAVIOUR_UNCLEAR] = {"unclear", "不明"},
        [BEHAVIOUR_PROGRAM] = {"mail program", "メールソフト"},
        [BEHAVIOUR_SERVER] = {"mail server", "メールサーバー"},
        [BEHAVIOUR_BOT] = {"bot", "ボット"},
        [BEHAVIOUR_TARGET] = {"target", "外からの通信先"},
    };
    return words[kind][l];
}

static const struct {
    bool tenths;
    const char *before[LANGUAGES], *after[LANGUAGES]; /* the number stands between them */
} reasons[BEHAVIOUR_REASONS] = {
    [BEHAVIOUR_LITTLE] = {false,
                          {"too little to say more: connections: ", "まだ少なく判断できない（接続 "},
                          {"", " 件）"}},
    [BEHAVIOUR_ONE_NETWORK] = {false, {"all to one provider: hosts: ", "宛先は一つの事業者だけ（"}, {"", " 台）"}},
    [BEHAVIOUR_FEW] = {false, {"few destinations: ", "宛先が少ない（"}, {"", " か所）"}},
    [BEHAVIOUR_MANY] = {false, {"many destinations: about ", "宛先が多い（約 "}, {"", " か所）"}},
    [BEHAVIOUR_FAST] = {false, {"fast: up to ", "速い（多い時は毎分 "}, {" connections a minute", " 件）"}},
    [BEHAVIOUR_SLOW] = {false, {"unhurried: up to ", "緩やか（多くても毎分 "}, {" connections a minute", " 件）"}},
    [BEHAVIOUR_AGAIN] = {true, {"tries again: ", "同じ宛先に再試行する（一か所あたり "}, {" times each", " 回）"}},
    [BEHAVIOUR_ONCE] = {true,
                        {"hardly comes back: ", "同じ宛先にほとんど戻らない（一か所あたり "},
                        {" times each", " 回）"}},
    [BEHAVIOUR_BURST] = {false, {"in bursts: seen in hours: ", "短時間に集中（"}, {"", " 時間帯だけ）"}},
    [BEHAVIOUR_STEADY] = {false, {"round the clock: seen in hours: ", "一日を通して続く（"}, {"", " 時間帯）"}},
    [BEHAVIOUR_TOWARDS] = {false,
                           {"began no connection; packets that came towards it: ", "自分からは接続していない（外から "},
                           {"", " パケット）"}},
};

void words_reason(struct buf *out, enum behaviour_reason reason, uint64_t number, enum language l)
{
    (void)buf_append_str(out, reasons[reason].before[l]);
    (void)(reasons[reason].tenths
               ? buf_printf(out, "%llu.%llu", (unsigned long long)(number / 10), (unsigned long long)(number % 10))
               : buf_printf(out, "%llu", (unsigned long long)number));
    (void)buf_append_str(out, reasons[reason].after[l]);
}

void words_notice(struct buf *out, enum behaviour_kind kind, const struct config *config, enum language l)
{
    static const char *const words[BEHAVIOUR_KINDS][LANGUAGES] = {
        [BEHAVIOUR_UNCLEAR] =
            {"Something on this line sends mail by port 25, which this line may not use. Please find out which "
             "program or device it is. A mail program should use port 587 with STARTTLS, or port 465 with TLS, and log "
             "in; a mail server should relay through a smart host with a login. If nobody here sends mail so, look "
             "for a computer that has been taken over.",
             "この回線から 25 番ポートでメールが送られようとしていますが、この回線では 25 "
             "番ポートは使えません。どのソフトや機器が"
             "送っているかをご確認ください。メールソフトは 587 番ポート（STARTTLS）または 465 "
             "番ポート（TLS）で認証して送信し、"
             "メールサーバーは認証付きの中継先（スマートホスト）を使ってください。心当たりがない場合は、パソコンや機器"
             "の乗っ取りを"
             "お疑いください。"},
        [BEHAVIOUR_PROGRAM] =
            {"Your mail program or device sends by port 25, which this line may not use. In its settings for outgoing "
             "mail, change the port to 587 with STARTTLS (or 465 with TLS), and switch on authentication with your "
             "mail address and password. Your mail provider's help page has the exact settings. Receiving mail does "
             "not change.",
             "お使いのメールソフトまたは機器は 25 番ポートで送信していますが、この回線では 25 "
             "番ポートは使えません。送信メールサーバー"
             "の設定で、ポートを 587 番（STARTTLS）または 465 番（TLS）に変え、SMTP "
             "認証（メールアドレスとパスワード）を有効にして"
             "ください。正確な設定値はメールサービスの案内をご覧ください。受信の設定は変わりません。"},
        [BEHAVIOUR_SERVER] =
            {"A mail server on this line delivers straight to other providers by port 25, which this line may not "
             "use. "
             "Let it relay through a smart host: port 587, STARTTLS, with a login. If it must deliver by itself, ask "
             "us for an exemption; it takes a fixed address, a name for that address in DNS, and somebody whom we can "
             "reach.",
             "この回線のメールサーバーは 25 番ポートで他社に直接配送していますが、この回線では 25 "
             "番ポートは使えません。認証付きの中継先"
             "（スマートホスト、587 "
             "番ポート、STARTTLS）を経由して送信してください。直接配送が必要な場合は、制限の解除をお申し込み"
             "ください。固定アドレス、その逆引き名、連絡先が必要です。"},
        [BEHAVIOUR_BOT] =
            {"A computer or device on this line connects to mail servers everywhere, very likely without anybody's "
             "knowledge: it has been taken over and sends spam. Disconnect it, remove the malicious software or reset "
             "the device, install its updates, and change the passwords that were used on it. Port 25 stays closed on "
             "this line.",
             "この回線のパソコンまたは機器が、多数のメールサーバーへ次々に接続しています。乗っ取られて迷惑メールを送っ"
             "ている可能性が"
             "高いと考えられます。ネットワークから切り離し、ウイルスの駆除または初期化、更新の適用を行い、その機器で使"
             "ったパスワードを"
             "変更してください。この回線の 25 番ポートは閉じたままです。"},
        [BEHAVIOUR_TARGET] =
            {"Nothing to do for the line: it began no connection. Others connect to it, or send mail elsewhere with "
             "its "
             "address as a forged sender; if a program on it takes part, its answers are stopped, too.",
             "この回線から始まった接続はなく、ご対応は不要です。外からこの回線へ接続されているか、この回線のアドレスが"
             "送信元として"
             "詐称されています。"},
    };
    const char *host = config->submission.present ? config->submission.hostname : NULL,
               *url = config->operator_.help_url;
    bool sends = kind == BEHAVIOUR_PROGRAM || kind == BEHAVIOUR_SERVER || kind == BEHAVIOUR_UNCLEAR;
    (void)buf_append_str(out, words[kind][l]);
    if (host != NULL && sends) {
        (void)buf_printf(out,
                         l == LANGUAGE_JA ? "当社の送信サーバーは %s、587 番ポートです。"
                                          : " Our own server for this is %s, port 587.",
                         host);
    }
    if (url != NULL && url[0] != '\0') {
        (void)buf_printf(out, l == LANGUAGE_JA ? "ご案内：%s" : " More: %s", url);
    }
}

const char *words_of(enum word word, enum language l)
{
    static const char *const words[WORDS][LANGUAGES] = {
        [WORD_LINES] = {"lines", "回線"},
        [WORD_ALL_REFUSED] = {"connections by port 25 refused", "25 番ポートの接続の拒否"},
        [WORD_ALL_NOTED] = {"only noted", "記録のみ"},
        [WORD_NONE] = {"nothing was refused, and nothing would have been", "拒否も、拒否に当たる通信もありません"},
        [WORD_REST] = {"lines besides, the least busy, by number only", "件数だけを記録した回線"},
        [WORD_CONNECTIONS] = {"their connections", "その接続"},
        [WORD_MORE] = {"lines that are not shown (--count)", "表示していない回線 (--count)"},
        [WORD_DAMAGED] = {"days that could not be read", "読めなかった日"},
        [WORD_WHY] = {"why", "理由"},
        [WORD_TO] = {"to", "宛先"},
        [WORD_MX] = {"mail host of", "MX:"},
        [WORD_NOTICES] = {"What to tell them", "お知らせ文"},
        [WORD_LINE] = {"LINE", "回線"},
        [WORD_CLASS] = {"CLASS", "クラス"},
        [WORD_KIND] = {"KIND", "種類"},
        [WORD_REFUSED] = {"REFUSED", "拒否"},
        [WORD_WOULD] = {"NOTED", "記録"},
        [WORD_DESTINATIONS] = {"TO", "宛先"},
        [WORD_FIRST] = {"FIRST", "最初"},
        [WORD_LAST] = {"LAST", "最後"},
    };
    return words[word][l];
}
