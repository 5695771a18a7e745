#include "policy/behaviour.h"

#include <math.h>

/* Where one kind ends and the next begins. A person's program speaks to one or two providers; a household's server to
 * a few dozen hosts, and comes back to them as its queue is tried again; ten connections a minute is what common
 * filters at small providers already take for a spammer's, and thirty no queue of a household makes. */
#define FEW_DESTINATIONS  3
#define MANY_DESTINATIONS 20
#define FAST_A_MINUTE     30
#define LITTLE            3  /* connections: too few to tell a server from a program */
#define AGAIN_TENTHS      20 /* connections for each destination */
#define ONCE_TENTHS       13
#define STEADY_HOURS      6 /* a day */

const char *behaviour_kind_name(enum behaviour_kind kind)
{
    static const char *const names[BEHAVIOUR_KINDS] = {[BEHAVIOUR_UNCLEAR] = "unclear",
                                                       [BEHAVIOUR_PROGRAM] = "mail-program",
                                                       [BEHAVIOUR_SERVER] = "mail-server",
                                                       [BEHAVIOUR_BOT] = "bot",
                                                       [BEHAVIOUR_TARGET] = "target"};
    return names[kind];
}

const char *behaviour_reason_name(enum behaviour_reason reason)
{
    static const char *const names[BEHAVIOUR_REASONS] = {[BEHAVIOUR_LITTLE] = "little-seen",
                                                         [BEHAVIOUR_ONE_NETWORK] = "one-provider",
                                                         [BEHAVIOUR_FEW] = "few-destinations",
                                                         [BEHAVIOUR_MANY] = "many-destinations",
                                                         [BEHAVIOUR_FAST] = "fast",
                                                         [BEHAVIOUR_SLOW] = "slow",
                                                         [BEHAVIOUR_AGAIN] = "tries-again",
                                                         [BEHAVIOUR_ONCE] = "hardly-twice",
                                                         [BEHAVIOUR_BURST] = "burst",
                                                         [BEHAVIOUR_STEADY] = "steady",
                                                         [BEHAVIOUR_TOWARDS] = "towards-it"};
    return names[reason];
}

static void because(struct behaviour_judgement *j, enum behaviour_reason reason, uint64_t number)
{
    if (j->count < BEHAVIOUR_REASONS_MAX) {
        j->why[j->count].reason = reason;
        j->why[j->count].number = number;
        j->count++;
    }
}

static bool is_fast(const struct behaviour *b)
{
    return b->peak >= FAST_A_MINUTE;
}

static uint64_t tenths(const struct behaviour *b)
{
    return b->destinations > 0 ? b->connections * 10 / b->destinations : 0;
}

static bool is_steady(const struct behaviour *b)
{
    return b->hours >= STEADY_HOURS * (b->days > 0 ? b->days : 1);
}

static void say_pace(const struct behaviour *b, struct behaviour_judgement *j)
{
    because(j, is_fast(b) ? BEHAVIOUR_FAST : BEHAVIOUR_SLOW, b->peak);
}

static void say_return(const struct behaviour *b, struct behaviour_judgement *j)
{
    if (tenths(b) >= AGAIN_TENTHS) {
        because(j, BEHAVIOUR_AGAIN, tenths(b));
    } else if (tenths(b) <= ONCE_TENTHS) {
        because(j, BEHAVIOUR_ONCE, tenths(b));
    }
}

static void say_hours(const struct behaviour *b, struct behaviour_judgement *j)
{
    because(j, is_steady(b) ? BEHAVIOUR_STEADY : BEHAVIOUR_BURST, b->hours);
}

/* To few places. Somebody's program; but none is that fast. */
static void judge_few(const struct behaviour *b, struct behaviour_judgement *j)
{
    j->kind = is_fast(b) ? BEHAVIOUR_UNCLEAR : BEHAVIOUR_PROGRAM;
    because(j, b->networks == 1 ? BEHAVIOUR_ONE_NETWORK : BEHAVIOUR_FEW, b->destinations);
    say_pace(b, j);
}

/* To many: a server waits and tries again; a bot neither waits nor comes back. */
static void judge_many(const struct behaviour *b, struct behaviour_judgement *j)
{
    bool many = b->destinations >= MANY_DESTINATIONS;
    bool once = tenths(b) <= ONCE_TENTHS, again = tenths(b) >= AGAIN_TENTHS;
    bool burst = many && once && !is_steady(b);
    if (is_fast(b)) {
        j->kind = many && again && is_steady(b) ? BEHAVIOUR_UNCLEAR : many || !again ? BEHAVIOUR_BOT : BEHAVIOUR_SERVER;
    } else {
        j->kind = burst && b->peak >= FAST_A_MINUTE / 3 ? BEHAVIOUR_BOT : BEHAVIOUR_SERVER;
    }
    because(j, BEHAVIOUR_MANY, b->destinations);
    say_pace(b, j);
    say_return(b, j);
    say_hours(b, j);
}

void behaviour_judge(const struct behaviour *b, struct behaviour_judgement *ret)
{
    *ret = (struct behaviour_judgement){.kind = BEHAVIOUR_UNCLEAR};
    if (b->connections == 0 && b->packets > 0) {
        ret->kind = BEHAVIOUR_TARGET;
        because(ret, BEHAVIOUR_TOWARDS, b->packets);
        return;
    }
    if (b->connections < LITTLE && b->networks != 1) {
        because(ret, BEHAVIOUR_LITTLE, b->connections);
        return;
    }
    bool one = b->networks == 1 && b->destinations < MANY_DESTINATIONS;
    (one || b->destinations <= FEW_DESTINATIONS ? judge_few : judge_many)(b, ret);
    if (b->connections < LITTLE) {
        because(ret, BEHAVIOUR_LITTLE, b->connections);
    }
}

uint32_t behaviour_estimate(const uint64_t *sketch, size_t bits)
{
    size_t set = 0;
    for (size_t i = 0; i < bits / 64; i++) {
        set += (size_t)__builtin_popcountll(sketch[i]);
    }
    double free_ = set < bits ? (double)(bits - set) : 0.5;
    return (uint32_t)lround((double)bits * log((double)bits / free_));
}
