/* busy.h in imagined times: when a call takes its threads, and when it does without. */
#ifndef LOCALCONV_TEST_PACE_H
#define LOCALCONV_TEST_PACE_H

#include "localconv/busy.h"
#include "testing.h"

enum { MICROSECOND = 1000, MILLISECOND = 1000 * MICROSECOND };

static int pace_failures;

static void expect_team(const lc_pace *pace, double products, int64_t now, int team, int line) {
    const int found = lc_team(pace, products, 2, now);
    if (found == team) return;
    fprintf(stderr, "pace.h:%d: %d threads, not %d\n", line, found, team);
    ++pace_failures;
}

#define EXPECT_TEAM(pace, products, now, team) expect_team(pace, products, now, team, __LINE__)

/* A call of 50 microseconds on two threads that ends at `now`, the last 4 milliseconds of it spent waiting. */
static void stall(lc_pace *pace, int64_t now) { lc_note_call(pace, 2, now - 4050 * MICROSECOND, now, 4 * MILLISECOND); }

/* Calls of 50 microseconds whose threads have saved so much. */
static void save(lc_pace *pace, int64_t saved, int64_t now) {
    for (int64_t i = 0; i * 50 * MICROSECOND < saved; ++i) lc_note_call(pace, 2, now - 50 * MICROSECOND, now, 0);
}

static void expect_pause(lc_pace *pace, int64_t now, int64_t pause, int line) {
    stall(pace, now);
    expect_team(pace, 0, now, 1, line);
    expect_team(pace, 0, now + pause - 1, 1, line);
    expect_team(pace, 0, now + pause, 2, line);
}

#define EXPECT_PAUSE(pace, now, pause) expect_pause(pace, now, pause, __LINE__)

/* Stalls that nothing makes up for make the pauses longer, up to a second; savings make them short again. */
static void check_pauses(void) {
    lc_pace pace = {0};
    int64_t now = MILLISECOND, pause = 8 * MILLISECOND;
    lc_forget_stalls();
    save(&pace, 100 * MICROSECOND, now);
    EXPECT_TEAM(&pace, 0, now, 2);
    for (int i = 0; i < 10; ++i) {
        EXPECT_PAUSE(&pace, now, pause);
        now += pause + MILLISECOND;
        pause = 2 * pause < LC_LONGEST ? 2 * pause : LC_LONGEST;
    }
    save(&pace, 5 * MILLISECOND, now); /* more than the stall that follows costs */
    EXPECT_PAUSE(&pace, now, LC_LONGEST / 2);
    save(&pace, 100 * MILLISECOND, now);
    EXPECT_PAUSE(&pace, now, 4 * MILLISECOND);
    save(&pace, 5 * MILLISECOND, now);
    EXPECT_PAUSE(&pace, now, 4 * MILLISECOND);         /* no shorter than the stall */
    lc_note_call(&pace, 1, now - MILLISECOND, now, 0); /* one thread saves nothing */
    EXPECT_PAUSE(&pace, now, 8 * MILLISECOND);
}

/* What is a stall depends on what the other threads are worth to the call. */
static void check_what_is_a_stall(void) {
    lc_pace small = {0}, large = {0};
    const int64_t now = 1000 * MILLISECOND;
    lc_forget_stalls();
    lc_note_call(&small, 2, now - 150 * MICROSECOND, now, 100 * MICROSECOND); /* an interrupt */
    EXPECT_TEAM(&small, 0, now, 2);
    lc_note_call(&large, 2, now - 104 * MILLISECOND, now, 4 * MILLISECOND); /* a small part of a long call */
    EXPECT_TEAM(&large, 0, now, 2);
    EXPECT_TEAM(&small, 0, now, 2);
    stall(&small, now);
    EXPECT_TEAM(&small, 0, now, 1);
    EXPECT_TEAM(&large, 0, now, 2); /* gains 50 ms, for at most four of waiting */
}

/* A call that was never made is judged by its multiply-adds; the first one may be a stall itself. */
static void check_new_calls(void) {
    lc_pace fresh = {0}, other = {0};
    const int64_t now = 1000 * MILLISECOND;
    lc_forget_stalls();
    EXPECT_TEAM(&fresh, 1e6, now, 2);
    stall(&fresh, now);
    EXPECT_TEAM(&other, 1e6, now, 1);
    EXPECT_TEAM(&other, 1e9, now, 2);                        /* 20 ms of arithmetic */
    lc_note_call(&other, 1, now - 10 * MILLISECOND, now, 0); /* alone it took longer than its arithmetic: memory */
    EXPECT_TEAM(&other, 1e6, now, 2);
}

static void expect_alone(const lc_pace *pace, int64_t least, int64_t most, int line) {
    if (pace->alone >= least && pace->alone <= most) return;
    fprintf(stderr, "pace.h:%d: %ld nanoseconds alone\n", line, (long)pace->alone);
    ++pace_failures;
}

#define EXPECT_ALONE(pace, least, most) expect_alone(pace, least, most, __LINE__)

/* Short times count at once, but not those of a first thread that had nothing to do; long ones little by little. */
static void check_what_is_learnt(void) {
    lc_pace pace = {0};
    const int64_t now = 1000 * MILLISECOND;
    lc_note_call(&pace, 2, now - 300 * MICROSECOND, now, 0);
    EXPECT_ALONE(&pace, 600 * MICROSECOND, 600 * MICROSECOND);
    lc_note_call(&pace, 2, now - 50 * MICROSECOND, now, 0);
    EXPECT_ALONE(&pace, 100 * MICROSECOND, 100 * MICROSECOND);
    lc_note_call(&pace, 2, now - 100 * MICROSECOND, now, 99 * MICROSECOND); /* the second thread did all */
    EXPECT_ALONE(&pace, 100 * MICROSECOND, 100 * MICROSECOND);
    lc_note_call(&pace, 2, now - 250 * MICROSECOND, now, 0); /* the first thread itself was without a processor */
    EXPECT_ALONE(&pace, 100 * MICROSECOND, 200 * MICROSECOND);
    lc_note_call(&pace, 2, now - 50 * MICROSECOND, now, 0);
    EXPECT_ALONE(&pace, 100 * MICROSECOND, 100 * MICROSECOND);
    pace.alone = 0;
    lc_note_call(&pace, 2, now - 100 * MICROSECOND, now, 99 * MICROSECOND);
    for (int i = 0; i < 100; ++i) lc_note_call(&pace, 1, now - 10 * MILLISECOND, now, 0);
    EXPECT_ALONE(&pace, 9 * MILLISECOND, 10 * MILLISECOND);
}

/* Returns how many expectations failed. */
static int check_pace(void) {
    check_pauses();
    check_what_is_a_stall();
    check_new_calls();
    check_what_is_learnt();
    return pace_failures;
}

#endif
