/* Whether the other threads of a call are there when they are wanted.
 *
 * Where other processes use the processors too, a worker may be without one for milliseconds, and every barrier of the
 * call waits for it. Results do not depend on the number of threads, so a call may do without the others, and a process
 * remembers when it should:
 *
 *   - A call on several threads measures how long its first thread was idle. If that is more than the other threads
 *     were worth, by LC_STALL_NANOSECONDS, it is a stall. Otherwise what they were worth is added to an account.
 *   - After a stall, calls that would gain less than it cost stay on one thread for a pause. Where the account covers
 *     the stall, that is about as long as the stall: rare ones leave the machine worth its threads. Where it does not,
 *     the pause is twice the last one, up to LC_LONGEST. The account then begins anew.
 *
 * What a call gains is judged by the shortest times it was seen to take, and before that by its multiply-adds. The
 * state is the process's: a stall says something of the machine, not of the call. It is four numbers, read and written
 * without a lock; threads that write at the same time lose a stall, a gain or a pause, at worst.
 */
#ifndef LOCALCONV_BUSY_H
#define LOCALCONV_BUSY_H

#include "platform.h"

/* Nanoseconds. A wait within LC_STALL_NANOSECONDS is a wake-up, or an interrupt. */
enum { LC_STALL_NANOSECONDS = 100 * 1000, LC_LONGEST = 1000 * 1000 * 1000 };
/* Stalls that the account must cover for the long pauses before them to be forgotten at once. */
enum { LC_RECOVERY_FACTOR = 16 };
/* Multiply-adds of one thread in a nanosecond, about. */
enum { LC_PRODUCTS_PER_NANOSECOND = 50 };

typedef struct lc_busy {
    int64_t until, pause; /* the end of the pause; how long it is */
    int64_t cost, gained; /* what the last stall cost; what threads have saved since */
} lc_busy;

static lc_busy lc_machine_busy = {0, 0, 0, 0};

/* Resets the stall history: no call has waited for its threads. */
static inline void lc_forget_stalls(void) {
    LC_STORE(&lc_machine_busy.until, 0);
    LC_STORE(&lc_machine_busy.pause, 0);
    LC_STORE(&lc_machine_busy.cost, 0);
    LC_STORE(&lc_machine_busy.gained, 0);
}

/* What is known of a call's time: nanoseconds on one thread, 0: nothing yet. */
typedef struct lc_pace {
    int64_t alone;
} lc_pace;

/* What `threads` threads save of a call that takes `alone` on one. */
LC_INLINE int64_t lc_gain(int64_t alone, int threads) { return alone - alone / threads; }

/* How many of the threads a call should take now. */
static inline int lc_team(const lc_pace *pace, double products, int threads, int64_t now) {
    if (threads == 1 || now >= LC_LOAD(&lc_machine_busy.until)) return threads;
    int64_t alone = LC_LOAD(&pace->alone);
    if (alone == 0) alone = (int64_t)(products / LC_PRODUCTS_PER_NANOSECOND);
    return lc_gain(alone, threads) < LC_LOAD(&lc_machine_busy.cost) ? 1 : threads;
}

/* The pause after a stall of that cost. */
LC_INLINE int64_t lc_next_pause(int64_t cost, int64_t gained, int64_t last) {
    if (gained >= LC_RECOVERY_FACTOR * cost) return cost;
    if (gained >= cost) return last / 2 > cost ? last / 2 : cost;
    const int64_t pause = 2 * (last > cost ? last : cost);
    return pause < LC_LONGEST ? pause : LC_LONGEST;
}

/* What is known of a call's time on one thread after another one, which took so long with so many threads. Shorter
 * times count at once, unless the first thread was idle for much of the call and may have done less than its share;
 * longer ones little by little, however long, as others may have used the processor. */
LC_INLINE int64_t lc_learn(int64_t known, int threads, int64_t took, int64_t waited) {
    const int64_t alone = (took - waited) * threads;
    if (known == 0) return alone;
    if (alone >= known) return known + (alone < 2 * known ? alone - known : known) / 8;
    return 4 * waited <= took ? alone : known;
}

/* Takes note of a call that began at `start` and ended `now`, on so many threads, the first of which was idle for
 * `waited`. */
static inline void lc_note_call(lc_pace *pace, int threads, int64_t start, int64_t now, int64_t waited) {
    const int64_t known = LC_LOAD(&pace->alone), alone = lc_learn(known, threads, now - start, waited);
    if (alone != known) LC_STORE(&pace->alone, alone);
    if (threads == 1) return;
    const int64_t saved = lc_gain(alone, threads) - waited, gained = LC_LOAD(&lc_machine_busy.gained);
    if (saved >= -LC_STALL_NANOSECONDS) {
        LC_STORE(&lc_machine_busy.gained, gained + saved);
        return;
    }
    const int64_t pause = lc_next_pause(waited, gained, LC_LOAD(&lc_machine_busy.pause));
    LC_STORE(&lc_machine_busy.cost, waited);
    LC_STORE(&lc_machine_busy.gained, 0);
    LC_STORE(&lc_machine_busy.pause, pause);
    LC_STORE(&lc_machine_busy.until, now + pause);
}

#endif
