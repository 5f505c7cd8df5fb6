/* The two limits of the machine: how fast it reads memory, and how fast it multiplies and adds float32.
 *
 * limits.py compiles this file into a shared library and calls it between the timed blocks of compare.py, so that a
 * limit and the figures beside it meet the machine in the same mood. C11 and POSIX threads. The widest instruction set
 * that processor and operating system offer is used: AVX-512F or AVX2+FMA on x86-64, NEON on aarch64, and elsewhere
 * whatever the compiler makes of a plain loop.
 *
 *   probe_isa()                     the name of the instruction set in use
 *   probe_limit(name)               use no wider one than that; 0 when there is one of that name
 *   probe_open(bytes)               allocate the buffer to read; 0 when it worked
 *   probe_read(threads, s, bytes)   bytes read a second by that many threads at once, over about s seconds, again and
 *                                   again through so many bytes of the buffer, a share for each thread
 *   probe_peak(threads, s)          floating-point operations a second likewise; a fused multiply-add counts as two
 *   probe_close()                   free the buffer
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define MAX_THREADS 256
#define PIECE (1L << 18)      /* floats read between two looks at the clock: 1 MiB, in one go or several */
#define LEAST (1L << 10)      /* floats of a thread's share: 4 KiB */
#define STEPS 20000L          /* multiply-add steps between two looks at the clock */
#define UNROLL _Pragma("GCC unroll 16")

/* One instruction set. The multiply-add loop keeps `chains` independent accumulators of `lanes` floats: enough to
 * cover latency times throughput, few enough to stay in registers. */
typedef struct {
    const char *name;
    float (*read)(const float *p, long n); /* n is a multiple of 64 */
    float (*peak)(long steps);
    int lanes, chains;
} isa_t;

static float read_plain(const float *p, long n)
{
    /* as integers: a compiler may not reorder a floating-point sum, and would wait for every addition */
    const uint64_t *q = (const uint64_t *)(const void *)p;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (long i = 0; i < n / 2; i += 4) {
        a ^= q[i];
        b ^= q[i + 1];
        c ^= q[i + 2];
        d ^= q[i + 3];
    }
    return (float)((a ^ b ^ c ^ d) & 0xff);
}

#define PLAIN_CHAINS 8
#define PLAIN_LANES 4
static float peak_plain(long steps)
{
    float acc[PLAIN_CHAINS * PLAIN_LANES], sum = 0;
    for (int j = 0; j < PLAIN_CHAINS * PLAIN_LANES; j++) acc[j] = (float)j;
    for (long i = 0; i < steps; i++)
        for (int j = 0; j < PLAIN_CHAINS * PLAIN_LANES; j++) acc[j] = acc[j] * 0.9999f + 1e-6f;
    for (int j = 0; j < PLAIN_CHAINS * PLAIN_LANES; j++) sum += acc[j];
    return sum;
}

/* The same two loops with vectors. Every loop over the accumulators is unrolled, or they would live on the stack. */
#define DEFINE_VECTOR(isa, target, vec, lanes, chains, set1, load, add, fma, store) \
    target static float read_##isa(const float *p, long n)                          \
    {                                                                               \
        vec a = set1(0), b = a, c = a, d = a;                                       \
        float out[lanes], sum = 0;                                                  \
        for (long i = 0; i < n; i += 4 * lanes) {                                   \
            a = add(a, load(p + i));                                                \
            b = add(b, load(p + i + lanes));                                        \
            c = add(c, load(p + i + 2 * lanes));                                    \
            d = add(d, load(p + i + 3 * lanes));                                    \
        }                                                                           \
        store(out, add(add(a, b), add(c, d)));                                      \
        for (int l = 0; l < lanes; l++) sum += out[l];                              \
        return sum;                                                                 \
    }                                                                               \
    target static float peak_##isa(long steps)                                      \
    {                                                                               \
        vec x = set1(1e-3f), y = set1(1e-3f), acc[chains];                          \
        float out[lanes], sum = 0;                                                  \
        UNROLL                                                                      \
        for (int j = 0; j < chains; j++) acc[j] = set1((float)j);                   \
        for (long i = 0; i < steps; i++) {                                          \
            UNROLL                                                                  \
            for (int j = 0; j < chains; j++) acc[j] = fma(x, y, acc[j]);            \
        }                                                                           \
        UNROLL                                                                      \
        for (int j = 1; j < chains; j++) acc[0] = add(acc[0], acc[j]);              \
        store(out, acc[0]);                                                         \
        for (int l = 0; l < lanes; l++) sum += out[l];                              \
        return sum;                                                                 \
    }

#if defined(__x86_64__)
DEFINE_VECTOR(avx512, __attribute__((target("avx512f"))), __m512, 16, 16, _mm512_set1_ps, _mm512_loadu_ps,
              _mm512_add_ps, _mm512_fmadd_ps, _mm512_storeu_ps)
DEFINE_VECTOR(avx2, __attribute__((target("avx2,fma"))), __m256, 8, 12, _mm256_set1_ps, _mm256_loadu_ps,
              _mm256_add_ps, _mm256_fmadd_ps, _mm256_storeu_ps)
#elif defined(__aarch64__)
static inline float32x4_t neon_fma(float32x4_t x, float32x4_t y, float32x4_t acc) { return vfmaq_f32(acc, x, y); }
DEFINE_VECTOR(neon, , float32x4_t, 4, 16, vdupq_n_f32, vld1q_f32, vaddq_f32, neon_fma, vst1q_f32)
#endif

static int only_avx2;

static isa_t widest(void)
{
    /* the compiler's cpu check asks the operating system (XGETBV) too */
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && !only_avx2) return (isa_t){"AVX-512", read_avx512, peak_avx512, 16, 16};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (isa_t){"AVX2", read_avx2, peak_avx2, 8, 12};
#elif defined(__aarch64__)
    return (isa_t){"NEON", read_neon, peak_neon, 4, 16};
#endif
    return (isa_t){"plain C", read_plain, peak_plain, PLAIN_LANES, PLAIN_CHAINS};
}

static float *buffer;
static long buffer_floats;

typedef struct {
    isa_t isa;
    const float *begin; /* this thread's share of the buffer; NULL measures multiply-adds */
    long floats;
    double seconds;
    int *waiting; /* threads that have not started yet: none measures before all run */
    double rate;
    volatile float sink; /* keeps the results alive */
} job_t;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *work(void *argument)
{
    job_t *job = argument;
    double start, spent, done = 0;
    long at = 0;
    __atomic_sub_fetch(job->waiting, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(job->waiting, __ATOMIC_ACQUIRE) > 0) {}
    start = now();
    do {
        if (job->begin) {
            long length = 0;
            for (long left = PIECE; left > 0; left -= length) {
                length = job->floats - at < left ? job->floats - at : left;
                job->sink = job->isa.read(job->begin + at, length);
                at = at + length == job->floats ? 0 : at + length;
            }
            done += (double)PIECE * sizeof(float);
        } else {
            job->sink = job->isa.peak(STEPS);
            done += 2.0 * STEPS * job->isa.lanes * job->isa.chains;
        }
        spent = now() - start;
    } while (spent < job->seconds);
    job->rate = done / spent;
    return NULL;
}

/* The sum of the threads' own rates; every thread runs for the same time, so they overlap but for a last piece. */
static double measure(int threads, double seconds, long floats)
{
    static job_t jobs[MAX_THREADS];
    pthread_t ids[MAX_THREADS];
    int waiting, started = 0;
    double rate = 0;
    long share;
    if (threads < 1 || threads > MAX_THREADS) return -1;
    if (floats > buffer_floats) floats = buffer_floats;
    share = floats / threads / LEAST * LEAST;
    if (floats > 0 && share < LEAST) share = LEAST;
    if (threads * share > buffer_floats) return -1;
    waiting = threads;
    for (int t = 0; t < threads; t++) {
        jobs[t] = (job_t){.isa = widest(), .floats = share, .seconds = seconds, .waiting = &waiting};
        jobs[t].begin = floats > 0 ? buffer + t * share : NULL;
        if (t > 0 && pthread_create(&ids[t], NULL, work, &jobs[t]) != 0) break;
        started = t + 1;
    }
    __atomic_sub_fetch(&waiting, threads - started, __ATOMIC_ACQ_REL);
    work(&jobs[0]); /* the calling thread is the first of them */
    for (int t = 1; t < started; t++) pthread_join(ids[t], NULL);
    for (int t = 0; t < started; t++) rate += jobs[t].rate;
    return started == threads ? rate : -1;
}

const char *probe_isa(void) { return widest().name; }

int probe_limit(const char *name)
{
    if (strcmp(name, "avx2") == 0) only_avx2 = 1;
    return strcmp(name, "avx2") == 0 && strcmp(widest().name, "AVX2") == 0 ? 0 : -1;
}

int probe_open(long long bytes)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 4096, (size_t)bytes) != 0) return -1;
    buffer = memory;
    buffer_floats = (long)(bytes / (long long)sizeof(float));
    for (long i = 0; i < buffer_floats; i++) buffer[i] = 1.0f; /* until written, every page is the same page of zeros */
    return 0;
}

double probe_read(int threads, double seconds, long long bytes)
{
    return measure(threads, seconds, (long)(bytes / (long long)sizeof(float)));
}

double probe_peak(int threads, double seconds) { return measure(threads, seconds, 0); }

void probe_close(void)
{
    free(buffer);
    buffer = NULL;
    buffer_floats = 0;
}
