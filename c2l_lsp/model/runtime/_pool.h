/* A few threads that help with products: one job at a time, whose parts are taken one by one by whoever is free.
 *
 * The calling thread takes parts too and never waits for a helper that has none, so that helpers which the system lets run
 * late cost nothing but their help. Helpers look for parts while a step lasts and shortly after it; then they sleep. They
 * keep away from the caller's processor, where a system may wake them: a part begun there would stand still while the
 * caller, who waits for it, runs.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

enum { MOST_HELPERS = 7, SPINS = 64, AWAKE_NS = 200000 };

/* Part `number` of a job, by the caller (who = 0) or a helper. */
typedef void Part(const void *arguments, int64_t number, int64_t who);

typedef struct {
    Part *run;
    const void *arguments;
    int64_t count, done; /* parts */
} Job;

static struct {
    pthread_mutex_t mutex, owned; /* of `asleep` and `working`; of the whole pool, for one caller at a time */
    pthread_cond_t woken;
    Job jobs[2];    /* by the last bit of their number: one that is over stays whole while late helpers look at it */
    uint64_t state; /* number of the job in the upper half, its next part in the lower */
    int64_t helpers, asleep, working, lent; /* lent: how many of the helpers the caller may have */
    int home;                               /* the caller's processor, −1 where that is not known */
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .owned = PTHREAD_MUTEX_INITIALIZER, .woken = PTHREAD_COND_INITIALIZER};

static void breathe(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The processor of this thread, −1 where that is not known. */
static int here(void) {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

/* Leave the caller's processor, if there is another. */
static void moved(int home) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(getpid(), sizeof allowed, &allowed)) return; /* the main thread's: this one's was narrowed */
    CPU_CLR(home, &allowed);
    if (CPU_COUNT(&allowed)) sched_setaffinity(0, sizeof allowed, &allowed);
#else
    (void)home;
#endif
    sched_yield();
}

/* Take and do a part of the job at hand; 0 if there is none left. */
static int helped(int64_t who) {
    uint64_t now = __atomic_load_n(&pool.state, __ATOMIC_ACQUIRE);
    Job *job = &pool.jobs[now >> 32 & 1];
    int64_t part = (int64_t)(now & 0xffffffff);
    if (part >= __atomic_load_n(&job->count, __ATOMIC_RELAXED)) return 0;
    /* Fails if the job is another by now, whatever was read of it. */
    if (__atomic_compare_exchange_n(&pool.state, &now, now + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        job->run(job->arguments, part, who);
        __atomic_add_fetch(&job->done, 1, __ATOMIC_RELEASE);
    }
    return 1;
}

static void *helping(void *number) {
    for (;;) {
        int64_t until = 0;
        while ((intptr_t)number < __atomic_load_n(&pool.lent, __ATOMIC_RELAXED)) {
            int home = __atomic_load_n(&pool.home, __ATOMIC_RELAXED);
            if (home >= 0 && here() == home) moved(home);
            else if (helped(1 + (intptr_t)number)) {
                until = 0;
                continue;
            }
            for (int i = 0; i < SPINS; i++) breathe();
            if (__atomic_load_n(&pool.working, __ATOMIC_ACQUIRE)) continue;
            if (!until) until = nanoseconds() + AWAKE_NS;
            else if (nanoseconds() > until) break;
        }
        pthread_mutex_lock(&pool.mutex);
        pool.asleep++;
        while (!pool.working || (intptr_t)number >= pool.lent) pthread_cond_wait(&pool.woken, &pool.mutex);
        pool.asleep--;
        pthread_mutex_unlock(&pool.mutex);
    }
    return NULL;
}

/* Have up to threads − 1 helpers until `released`; 0 if somebody else has them or none are wanted. */
static int hired(int64_t threads) {
    int64_t wanted = threads - 1 < MOST_HELPERS ? threads - 1 : MOST_HELPERS;
    if (wanted < 1 || pthread_mutex_trylock(&pool.owned)) return 0;
    if (pool.helpers < wanted) {
        sigset_t all, before; /* a signal is for the interpreter's threads */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        for (pthread_t thread; pool.helpers < wanted; pool.helpers++) {
            if (pthread_create(&thread, NULL, helping, (void *)(intptr_t)pool.helpers)) break;
            pthread_detach(thread);
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_mutex_lock(&pool.mutex);
    __atomic_store_n(&pool.home, here(), __ATOMIC_RELAXED);
    __atomic_store_n(&pool.lent, wanted, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.working, 1, __ATOMIC_RELEASE);
    if (pool.asleep) pthread_cond_broadcast(&pool.woken);
    pthread_mutex_unlock(&pool.mutex);
    return 1;
}

static void released(void) {
    __atomic_store_n(&pool.working, 0, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&pool.owned);
}

/* All parts of a job, with the helpers that were hired. */
static void shared(Part *run, const void *arguments, int64_t count) {
    uint64_t number = (__atomic_load_n(&pool.state, __ATOMIC_RELAXED) >> 32) + 1;
    Job *job = &pool.jobs[number & 1];
    job->run = run, job->arguments = arguments;
    __atomic_store_n(&job->done, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&job->count, count, __ATOMIC_RELAXED);
    __atomic_store_n(&pool.state, number << 32, __ATOMIC_RELEASE);
    while (helped(0)) continue;
    for (int64_t spins = 1; __atomic_load_n(&job->done, __ATOMIC_ACQUIRE) < count; spins++)
        if (spins % SPINS) breathe();
        else sched_yield(); /* whoever has the last part may be waiting for this processor */
}
