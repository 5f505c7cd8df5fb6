/* Plans by the key of a call, in a table of fixed size that any thread searches without a lock and without the GIL.
 *
 * A key has a set of LC_XLA_WAYS slots. A slot counts its users: those who run the plan in it, which keeps it where it
 * is. Who puts a plan in takes the slot exclusively first (users from 0 to -1), which fails while there are any; so a
 * key is compared, and a plan used, only while nobody writes. Whoever meets a slot that is being written goes on, and
 * at worst makes a plan that there is already.
 */
#ifndef LOCALCONV_XLA_PLANS_H
#define LOCALCONV_XLA_PLANS_H

#include "../platform.h"
#include "frame.h"

enum { LC_XLA_SETS = 256, LC_XLA_WAYS = 4, LC_XLA_SLOTS = LC_XLA_SETS * LC_XLA_WAYS };

/* How a call runs: the job (a Python object; NULL: there is nothing to sum, the result is 0), and how many examples it
 * runs for. step: elements from one example to the next, 0 where an operand is shared by all. */
typedef struct lc_xla_plan {
    void *job;
    int64_t examples, step[LC_XLA_ARRAYS];
    int64_t nbytes; /* what it weighs */
} lc_xla_plan;

typedef struct lc_xla_slot {
    int64_t users; /* -1: being written */
    int64_t hash;  /* of the key, to pass by others without holding them */
    int filled;
    lc_xla_plan plan;
    lc_xla_key key;
} lc_xla_slot;

typedef struct lc_xla_table {
    lc_xla_slot slots[LC_XLA_SLOTS];
    int64_t nbytes, clock_hand; /* of all plans together; where the next victim is looked for */
} lc_xla_table;

static inline int64_t lc_xla_hash(const lc_xla_key *key) {
    uint64_t hash = (uint64_t)key->length;
    for (int64_t i = 0; i < key->length; ++i) {
        hash = (hash ^ (uint64_t)key->words[i]) * 0x9E3779B97F4A7C15u; /* 2**64 over the golden ratio */
        hash ^= hash >> 32;
    }
    return (int64_t)hash;
}

static inline int lc_xla_same(const lc_xla_key *a, const lc_xla_key *b) {
    return a->length == b->length && !memcmp(a->words, b->words, (size_t)a->length * sizeof *a->words);
}

/* Becomes one of the users that are counted, unless somebody has taken all exclusively. */
static inline int lc_xla_hold(int64_t *users) {
    int64_t users_now = LC_LOAD(users);
    while (users_now >= 0) {
        if (lc_compare_exchange(users, &users_now, users_now + 1)) return 1;
    }
    return 0;
}

static inline void lc_xla_release(int64_t *users) { lc_add(users, -1); }

/* Takes what has no users for oneself. */
static inline int lc_xla_take(int64_t *users) {
    int64_t users_now = 0;
    return lc_compare_exchange(users, &users_now, -1);
}

/* The slot of a key, held, or NULL. */
static inline lc_xla_slot *lc_xla_find(lc_xla_table *table, const lc_xla_key *key) {
    const int64_t hash = lc_xla_hash(key);
    lc_xla_slot *set = table->slots + (uint64_t)hash % LC_XLA_SETS * LC_XLA_WAYS;
    for (int way = 0; way < LC_XLA_WAYS; ++way) {
        if (LC_LOAD(&set[way].hash) != hash || !lc_xla_hold(&set[way].users)) continue;
        if (set[way].filled && lc_xla_same(&set[way].key, key)) return set + way;
        lc_xla_release(&set[way].users);
    }
    return NULL;
}

/* Empties a slot that was taken, and returns the job that was in it, whose reference is now the caller's. */
static inline void *lc_xla_empty(lc_xla_table *table, lc_xla_slot *slot) {
    void *job = slot->filled ? slot->plan.job : NULL;
    if (slot->filled) lc_add(&table->nbytes, -slot->plan.nbytes);
    slot->filled = 0;
    return job;
}

/* Empties the next slot that has a plan and no users; returns whether there was one. *job: as of lc_xla_empty. */
static inline int lc_xla_evict(lc_xla_table *table, void **job) {
    for (int tries = 0; tries < LC_XLA_SLOTS; ++tries) {
        lc_xla_slot *slot = table->slots + (uint64_t)lc_add(&table->clock_hand, 1) % LC_XLA_SLOTS;
        if (!lc_xla_take(&slot->users)) continue;
        const int filled = slot->filled;
        *job = lc_xla_empty(table, slot);
        lc_add(&slot->users, 1);
        if (filled) return 1;
    }
    return 0;
}

/* Puts a plan into the set of its key: 1, or 0 if all slots of the set have users. *old: the job that had to go. */
static inline int lc_xla_put(lc_xla_table *table, const lc_xla_key *key, const lc_xla_plan *plan, void **old) {
    const int64_t hash = lc_xla_hash(key);
    lc_xla_slot *set = table->slots + (uint64_t)hash % LC_XLA_SETS * LC_XLA_WAYS;
    *old = NULL;
    /* An empty slot first; if there is none, one after the other. */
    for (int pass = 0; pass < 2; ++pass) {
        const uint64_t first = pass ? (uint64_t)lc_add(&table->clock_hand, 1) : 0;
        for (int i = 0; i < LC_XLA_WAYS; ++i) {
            lc_xla_slot *slot = set + (first + (uint64_t)i) % LC_XLA_WAYS;
            if (!lc_xla_take(&slot->users)) continue;
            const int taken = pass || !slot->filled;
            if (taken) {
                *old = lc_xla_empty(table, slot);
                LC_STORE(&slot->hash, hash);
                slot->key = *key, slot->plan = *plan, slot->filled = 1;
                lc_add(&table->nbytes, plan->nbytes);
            }
            lc_add(&slot->users, 1);
            if (taken) return 1;
        }
    }
    return 0;
}

#endif
